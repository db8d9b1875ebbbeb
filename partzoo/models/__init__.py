"""The zoo's model architectures, with one file for each, or one folder for a family."""
