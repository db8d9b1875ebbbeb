"""PART: relative positions of off-grid patches, for images and for signals."""
