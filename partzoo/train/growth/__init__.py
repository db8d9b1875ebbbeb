"""Grow larger models from smaller trained ones."""
