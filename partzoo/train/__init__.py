"""Training: data, augmentation and one loop for every method. Inference never imports this."""
