"""Spatial Reasoning trains residual networks to predict relations between patches."""
