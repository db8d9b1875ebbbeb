"""Spatial Reasoning: relations between patches by residual networks."""
