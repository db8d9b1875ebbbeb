"""Spatial Reasoning: prediction of relations between patches by residual networks."""
