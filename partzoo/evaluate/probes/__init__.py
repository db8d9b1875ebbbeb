"""Figures of frozen features: neighbours, linear probes, positions and relations."""
