"""Evaluate parts and features: metrics on arrays, probes, and protocols that apply them to data sets."""
