"""Convert published checkpoints to models of the zoo."""
