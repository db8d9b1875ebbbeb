"""Images in Parquet files, as bytes or as paths."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from partzoo.collections.sources import Record, Source
from partzoo.collections.storage import WILDCARDS, folder_of, image_at, joined, last_name, list_files, opened
from partzoo.errors import UsageError, cause_of, require

KEYS = ("key", "__key__", "id", "file_name", "path")
IMAGES = ("image", "bytes", "jpg", "png", "path", "file", "file_name", "url")
ROWS = 64  # rows whose bytes are in memory at a time


class Parquet(Source):
    """The images in a column of one or more Parquet files.

    The column holds encoded bytes, paths, or the struct of the datasets library, whose bytes come first and whose path
    counts where they are null. Paths are relative to the file's folder. Of several such columns, the first in
    :data:`IMAGES` is read. A key is the row's string or whole number in one of :data:`KEYS`, or the
    file's name and the row's number.
    """

    form = "Parquet files"

    def __init__(self, address: str) -> None:
        require("pyarrow.parquet", "collections")
        super().__init__(address)
        pattern = any(letter in address for letter in WILDCARDS)
        self._files = list(list_files(address).values()) if pattern else [address]
        about = [_about(file) for file in self._files]
        self._rows = [rows for rows, _, _ in about]
        self._columns = [(image, key) for _, image, key in about]
        if not sum(self._rows):
            raise UsageError(f"{address!r} holds no rows: check the path.")

    @classmethod
    def accepts(cls, address: str) -> bool:
        return address.lower().endswith((".parquet", ".pq"))

    def __len__(self) -> int:
        return sum(self._rows)

    def keys(self) -> Iterator[str]:
        for file, (_, key) in zip(self._files, self._columns, strict=True):
            for row, (found,) in enumerate(_read(file, [key])):
                yield _key(file, row, found)

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        return self.picked(range(len(self))[start:stop])

    def picked(self, numbers: Sequence[int]) -> Iterator[Record]:
        before = 0
        for file, rows, columns in zip(self._files, self._rows, self._columns, strict=True):
            wanted = [number - before for number in _between(numbers, before, before + rows)]
            if wanted:
                for row, (image, key) in zip(wanted, _read(file, columns, wanted), strict=True):
                    yield Record(_key(file, row, key), _image(file, image))
            before += rows


def _about(file: str) -> tuple[int, str, str | None]:
    """Return a file's number of rows, and its columns of images and of keys."""
    import pyarrow.parquet as pq

    try:
        with opened(file) as stream, pq.ParquetFile(stream) as table:
            schema, rows = table.schema_arrow, table.metadata.num_rows
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as Parquet ({cause_of(error)}).") from error
    known = [name for name in IMAGES if name in schema.names]
    fitting = known or [field.name for field in schema if _holds_bytes(field.type)]
    if not fitting or (not known and len(fitting) > 1):
        raise UsageError(
            f"{file} has no column that is known to hold images ({', '.join(schema.names)}): call it 'image'."
        )
    return rows, fitting[0], next((name for name in KEYS if name in schema.names and _is_key(schema, name)), None)


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_key(schema: Any, name: str) -> bool:
    from pyarrow import types

    kind = schema.field(name).type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_integer(kind)


def _read(file: str, columns: Any, rows: Sequence[int] | None = None) -> Iterator[list[Any]]:
    """Yield the values of these columns of some rows, in ascending order, or of all.

    Each group of rows is read once, up to the last of these rows, and a group without any is not read.
    """
    import pyarrow.parquet as pq

    names = [name for name in columns if name is not None]
    with opened(file) as stream, pq.ParquetFile(stream) as table:
        rows, end = range(table.metadata.num_rows) if rows is None else rows, 0
        if not names:
            yield from ([None] for _ in rows)
            return
        for group in range(table.num_row_groups):
            begin, end = end, end + table.metadata.row_group(group).num_rows
            wanted = _between(rows, begin, end)
            if not wanted:
                continue
            for batch in table.iter_batches(ROWS, row_groups=[group], columns=list(dict.fromkeys(names))):
                values = {name: batch.column(name) for name in batch.schema.names}
                for row in _between(wanted, begin, begin + batch.num_rows):
                    yield [None if name is None else values[name][row - begin].as_py() for name in columns]
                begin += batch.num_rows
                if begin > wanted[-1]:
                    break


def _between(numbers: Sequence[int], first: int, last: int) -> Sequence[int]:
    """Return those of ascending numbers that are at least ``first`` and below ``last``."""
    return numbers[bisect_left(numbers, first) : bisect_left(numbers, last)]


def _key(file: str, row: int, key: str | int | None) -> str:
    return f"{last_name(file)}:{row}" if key is None else str(key)


def _image(file: str, value: Any) -> Any:
    """Return bytes unchanged, and where there are none, the path or address."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return image_at(joined(folder_of(file), value)) if isinstance(value, str) else value
