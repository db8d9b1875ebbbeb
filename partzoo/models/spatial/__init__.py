"""Spatial Reasoning: relations between patches, predicted by residual networks."""
