"""Random augmentation of image batches, on the batch's device."""
