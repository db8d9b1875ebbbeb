"""Sinks: the formats of shards, one in each module of this package: a new module with a :class:`Sink` adds a format."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from partzoo.errors import UsageError

if TYPE_CHECKING:
    import pyarrow

FORMATS = ("parquet", "safetensors")  # names of the modules, listed so that the command line need not import them


class Sink(ABC):
    """A format of shards.

    Attributes:
        ending: ending of the files' names.
    """

    ending: ClassVar[str]

    @abstractmethod
    def writer(self, path: Path, schema: pyarrow.Schema) -> AbstractContextManager[Callable[[pyarrow.Table], None]]:
        """Return a context with a function that adds rows; the file gets its name when the context ends.

        The same rows, however they are divided among calls, give the same bytes.
        """


def sink_of(name: str) -> Sink:
    """Return the sink of a format.

    Raises:
        UsageError: the format is unknown.
    """
    if name not in {each.name for each in pkgutil.iter_modules(__path__)}:
        raise UsageError(f"Unknown form={name!r}: choose one of {', '.join(FORMATS)}.")
    module = importlib.import_module(f"{__name__}.{name}")
    (kind,) = (
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Sink) and each.__module__ == module.__name__
    )
    return kind()
