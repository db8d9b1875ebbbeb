"""MPAE: parts by a masked part autoencoder."""
