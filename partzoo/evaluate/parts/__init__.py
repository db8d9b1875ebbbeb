"""Evaluate parts by comparing them with landmarks and masks."""
