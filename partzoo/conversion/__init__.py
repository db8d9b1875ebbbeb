"""Conversion of published checkpoints to models of the zoo."""
