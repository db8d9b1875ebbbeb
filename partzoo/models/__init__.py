"""The zoo's architectures: a file each, or a folder for a family."""
