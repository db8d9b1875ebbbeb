"""Rows that Python yields as a source: a dataset of the datasets library, in memory or streamed, or a list of dicts."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from partzoo.collections.sources import Record, Source
from partzoo.collections.sources.parquet import IMAGES, KEYS
from partzoo.collections.storage import image_at, plain
from partzoo.errors import UsageError


class Rows(Source):
    """The images in one column of rows, which are mappings from the names of columns to values.

    The column is the first of :data:`~partzoo.collections.sources.parquet.IMAGES`. A key is the string or whole number
    in one of :data:`~partzoo.collections.sources.parquet.KEYS`, or else the row's number.

    Rows with a length and an index are read by number. A stream must yield the same rows in the same order each time.
    It is read once to list it, and once by each worker, which passes over the rows of the others. Without keys, the
    digest covers the images, so that a run is not resumed with a stream that has been shuffled differently.

    Args:
        rows: the rows.

    Raises:
        UsageError: the rows are not mappings, have no column of images, or can be read only once.
    """

    rank = 10
    form = "rows that are dicts, in Python"

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        kind = type(rows).__name__
        super().__init__(f"{type(rows).__module__.partition('.')[0]}.{kind}")
        if not isinstance(rows, Iterable) or isinstance(rows, Mapping):
            raise UsageError(f"A collection is a path, an address or rows that are dicts, not of the type {kind}.")
        if iter(rows) is rows:
            raise UsageError(
                f"Rows of the type {kind} can be read only once: pass a list, or an object that starts anew."
            )
        self._indexed = hasattr(rows, "__getitem__") and hasattr(rows, "__len__")
        first = next(iter(rows), None)
        if not isinstance(first, Mapping):
            what = "there are none" if first is None else f"the first is of the type {type(first).__name__}"
            raise UsageError(f"The rows of a collection must be dicts: {what}.")
        column = next((name for name in IMAGES if name in first), None)
        if column is None:
            raise UsageError(f"The rows have no column of images ({', '.join(map(str, first))}): call it 'image'.")
        self._image = column
        self._key = next((name for name in KEYS if name != column and isinstance(first.get(name), (str, int))), None)
        self._rows = _encoded(rows, column)
        self._paused: tuple[Iterator[Any], int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_paused": None}

    @classmethod
    def accepts(cls, address: str) -> bool:
        return False

    def __len__(self) -> int:
        return self._listing[0]

    def keys(self) -> Iterator[str]:
        return (self._key_of(number, row) for number, row in enumerate(self._named()))

    def digest(self) -> str:
        return self._listing[1]

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        for number, row in self._read(start, stop):
            yield Record(self._key_of(number, row), _image_of(row.get(self._image)))

    def _read(self, start: int, stop: int | None) -> Iterator[tuple[int, Any]]:
        """Yield rows with their numbers; a stream goes on where the last reader has paused, unless that is too far."""
        if self._indexed:
            yield from ((number, self._rows[number]) for number in range(len(self))[start:stop])
            return
        stream, at = self._paused or (iter(self._rows), 0)
        if at > start:
            stream, at = iter(self._rows), 0
        self._paused = None  # for a second reader meanwhile, which begins anew
        try:
            while stop is None or at < stop:
                row = next(stream, None)
                if row is None:
                    stream, at = iter(self._rows), 0
                    return
                at += 1
                if at > start:
                    yield at - 1, row
        finally:
            self._paused = stream, at

    @cached_property
    def _listing(self) -> tuple[int, str]:
        """Number and digest of the rows."""
        found, count = hashlib.sha256(), 0
        for count, row in enumerate(self._named(), 1):
            found.update(os.fsencode(self._key_of(count - 1, row)) + b"\0")
            if self._key is None:
                found.update(hashlib.sha256(_content(row.get(self._image))).digest())
        return count, found.hexdigest()

    def _named(self) -> Iterable[Any]:
        """Return the rows, of which only the keys are needed: a dataset with columns need not read the others."""
        chosen = getattr(self._rows, "select_columns", None)
        return chosen([self._key]) if chosen and self._key else self._rows

    def _key_of(self, number: int, row: Mapping[str, Any]) -> str:
        return str(number) if self._key is None else str(row[self._key])


def _encoded(rows: Any, column: str) -> Any:
    """Have the datasets library leave the images of a column encoded; other rows are returned unchanged."""
    feature = (getattr(rows, "features", None) or {}).get(column)
    if type(feature).__name__ == "Image" and dataclasses.is_dataclass(feature):
        return rows.cast_column(column, dataclasses.replace(feature, decode=False))  # type: ignore[type-var]
    return rows


def _image_of(value: Any) -> Any:
    """Return the bytes of the datasets library's images, and where there are none, the path."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    return image_at(plain(value)) if isinstance(value, (str, os.PathLike)) else value


def _content(value: Any) -> bytes:
    """Return bytes that differ between images that differ."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, (str, os.PathLike)):
        return os.fsencode(value)
    return value.tobytes() if isinstance(value, Image.Image) else np.asarray(value).tobytes()
