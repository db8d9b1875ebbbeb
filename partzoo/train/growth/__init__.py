"""Growth of larger models from smaller trained ones."""
