"""Read images from any source, and preprocess them for models."""
