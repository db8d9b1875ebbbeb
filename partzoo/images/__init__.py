"""Reading images from any source, and preprocessing them for models."""
