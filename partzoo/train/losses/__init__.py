"""Losses, one file for each method, each function with its equation."""
