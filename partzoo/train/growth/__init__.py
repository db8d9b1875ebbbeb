"""Larger models that begin from smaller trained ones."""
