"""Random views of image batches, made on the batch's device."""
