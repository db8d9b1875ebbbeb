"""Speed benchmarks, which time partzoo and a named peer in the same run; ``partzoo bench`` runs them."""

from partzoo.bench.runner import ROWS, run

__all__ = ["ROWS", "run"]
