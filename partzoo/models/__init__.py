"""The zoo's own architectures, one file each."""
