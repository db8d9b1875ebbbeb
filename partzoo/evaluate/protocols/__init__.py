"""One module per protocol: the data's folder layout, its points and rules, and ``evaluate``."""
