"""The zoo's model architectures, with one file each, or one folder for a family."""
