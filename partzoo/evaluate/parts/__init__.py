"""Figures of parts against landmarks and masks."""
