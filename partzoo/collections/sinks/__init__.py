"""Sinks: the formats of shards, one in each module of this package: a new module with a :class:`Sink` adds a format."""

from __future__ import annotations

import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from partzoo.errors import UsageError

if TYPE_CHECKING:
    import pyarrow

# Names of the modules, with - for _, listed so that the command line need not import them.
TABLES = ("parquet", "safetensors")  # of any rows
FORMATS = (*TABLES, "coco", "index-png")  # of parts


class Sink(ABC):
    """A format of shards.

    Attributes:
        ending: ending of the files' names; empty for folders.
        folder: whether a shard is a folder of files.
        stage: name of the only stage whose rows the format can hold; None if it holds any.
    """

    ending: ClassVar[str]
    folder: ClassVar[bool] = False
    stage: ClassVar[str | None] = None

    @abstractmethod
    def writer(self, path: Path, schema: pyarrow.Schema) -> AbstractContextManager[Callable[[pyarrow.Table], None]]:
        """Return a context with a function that adds rows, at the end of which the shard is complete.

        The same rows, however they are divided among calls, give the same bytes.

        Args:
            path: an empty file, or an empty folder, that is written.
            schema: columns of the rows; its metadata may hold the names of the parts as JSON, under ``names``.
        """


def sink_of(name: str) -> Sink:
    """Return the sink of a format.

    Raises:
        UsageError: the format is unknown.
    """
    if name.replace("-", "_") not in {each.name for each in pkgutil.iter_modules(__path__)}:
        raise UsageError(f"Unknown form={name!r}: choose one of {', '.join(FORMATS)}.")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    (kind,) = (
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Sink) and each.__module__ == module.__name__
    )
    return kind()


def names_in(schema: pyarrow.Schema) -> list[str]:
    """Return the names of the parts that a schema's metadata holds."""
    return json.loads(schema.metadata[b"names"])
