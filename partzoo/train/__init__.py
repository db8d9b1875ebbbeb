"""Training: data, augmentation and one loop for all methods. Inference code never imports this package."""
