"""MPAE discovers parts with a masked part autoencoder."""
