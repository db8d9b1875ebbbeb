"""Checkpoints of the methods' authors, read and turned into models of the zoo."""
