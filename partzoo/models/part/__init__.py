"""PART predicts the relative positions of off-grid patches, of images or of signals."""
