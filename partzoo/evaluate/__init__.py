"""Scores for parts and features: metrics on arrays, probes, and the protocols that use them on data."""
