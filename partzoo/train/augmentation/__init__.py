"""Augment batches of images at random, on the batch's device."""
