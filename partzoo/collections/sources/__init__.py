"""Sources of records, one kind in each module of this package: a new module with a :class:`Source` adds a kind."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from partzoo.collections.storage import full
from partzoo.errors import UsageError


class Record(NamedTuple):
    """One image of a collection.

    Attributes:
        key: name of the image in the collection, which does not depend on where the collection lies.
        image: path, address, encoded bytes, or :class:`partzoo.collections.storage.Stored`.
    """

    key: str
    image: Any


class Source(ABC):
    """A collection of images in a fixed order, which can be pickled and read from any number on.

    Attributes:
        rank: kinds with a lower rank are asked first whether an address is theirs.
        form: what the addresses of this kind look like, for messages.
    """

    rank: ClassVar[int] = 0
    form: ClassVar[str]

    def __init__(self, address: str) -> None:
        self.address = address

    @classmethod
    @abstractmethod
    def accepts(cls, address: str) -> bool:
        """Return whether an address is of this kind."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def keys(self) -> Iterator[str]:
        """Yield the keys in order, without reading images."""

    @abstractmethod
    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Yield the records with these numbers, in order."""

    def picked(self, numbers: Sequence[int]) -> Iterator[Record]:
        """Yield the records with these ascending numbers."""
        return (record for number in numbers for record in self.records(number, number + 1))

    def digest(self) -> str:
        """Return a sha256 of the keys in order, which changes with the order or the number of images."""
        found = hashlib.sha256()
        for key in self.keys():
            found.update(os.fsencode(key) + b"\0")
        return found.hexdigest()


class Listed(Source):
    """A source whose records are known from the start."""

    def __init__(self, address: str, records: Sequence[Record]) -> None:
        super().__init__(address)
        if not records:
            raise UsageError(f"{address!r} holds no images. A collection is {forms()}.")
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def keys(self) -> Iterator[str]:
        return (record.key for record in self._records)

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        return islice(iter(self._records), start, stop)


def open_source(address: str | os.PathLike | Source | Iterable[Mapping[str, Any]]) -> Source:
    """Open a collection of images.

    Args:
        address: folder, pattern, list file, COCO file, tars or Parquet files, on this machine or at an address of
            fsspec; or rows that are dicts, such as a dataset of the datasets library, in memory or streamed (see
            :class:`partzoo.collections.sources.rows.Rows`); a source is returned unchanged.

    Raises:
        UsageError: there is no such collection, or it holds no images.
        MissingExtraError: a library that this kind needs is not installed.
    """
    if isinstance(address, Source):
        return address
    if not isinstance(address, (str, os.PathLike)):
        return importlib.import_module(f"{__name__}.rows").Rows(address)
    text = full(address)
    for kind in kinds():
        if kind.accepts(text):
            return kind(text)
    raise UsageError(f"{text!r} is not a collection of images: name {forms()}.")


def kinds() -> list[type[Source]]:
    """Return all kinds of sources, in the order in which they are asked."""
    modules = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    found = [
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Source) and each.__module__ == module.__name__
    ]
    return sorted(found, key=lambda kind: (kind.rank, kind.__name__))


def forms() -> str:
    """Return what the addresses of all kinds look like, for messages."""
    *some, last = (kind.form for kind in kinds())
    return f"{', '.join(some)} or {last}"
