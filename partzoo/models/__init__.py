"""The zoo's architectures: one file each, or one folder for a family."""
