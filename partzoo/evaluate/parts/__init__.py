"""Figures that compare parts with landmarks and masks."""
