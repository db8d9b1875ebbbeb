"""The objectives: what each method draws from a batch and which loss it descends."""
