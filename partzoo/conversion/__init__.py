"""Converting published checkpoints into models of the zoo."""
