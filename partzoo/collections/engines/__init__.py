"""Engines: ways to make the shards of a result. Each module has ``run(work, numbers, workers)``, which yields them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from partzoo.errors import UsageError

if TYPE_CHECKING:
    from partzoo.collections.shards import Shard, Work

    Run = Callable[[Work, Sequence[int], int], Generator[Shard, None, None]]

ENGINES = ("local", "ray")


def engine_of(name: str) -> Run:
    """Return the function of an engine that makes the shards with these numbers and yields each when it is written.

    Raises:
        UsageError: the engine is unknown.
    """
    if name not in ENGINES:
        raise UsageError(f"Unknown engine={name!r}: choose one of {', '.join(ENGINES)}.")
    return importlib.import_module(f"{__name__}.{name}").run
