"""Evaluation of parts and features: metrics on arrays, probes, and the protocols that apply them to data."""
