"""Reading of images from any source, and their preprocessing for models."""
