"""MPAE: discovery of parts by a masked part autoencoder."""
