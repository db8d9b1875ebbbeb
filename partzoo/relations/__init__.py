"""Relations between patches of one image, and between whole images."""
