"""Losses, with one file for each method; each function states its equation."""
