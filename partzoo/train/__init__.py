"""Training: data, augmentation and one loop for every method. Inference code never imports this package."""
