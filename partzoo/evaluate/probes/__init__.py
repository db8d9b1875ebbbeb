"""Evaluate frozen features: nearest neighbours, linear probes, positions and relations."""
