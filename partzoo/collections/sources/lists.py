"""Images that a text or CSV file lists."""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath

from partzoo.collections.sources import Listed, Record
from partzoo.collections.storage import folder_of, image_at, joined, opened
from partzoo.errors import UsageError, cause_of

COLUMNS = ("path", "file", "file_name", "filename", "image", "url")
SEPARATORS = {".txt": "", ".csv": ",", ".tsv": "\t"}


class List(Listed):
    """The images that a file lists, in its order; paths are relative to the file's folder, and keys are as written.

    A ``.txt`` file has one path on each line; a ``.csv`` or ``.tsv`` file has a header with one of :data:`COLUMNS`.
    """

    form = "a list (.txt, .csv, .tsv)"

    def __init__(self, address: str) -> None:
        try:
            with opened(address) as file:
                text = file.read().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{address} cannot be read ({cause_of(error)}): check the path.") from error
        folder = folder_of(address)
        separator = SEPARATORS[_suffix(address)]
        names = _column(address, text, separator) if separator else [line.strip() for line in text.splitlines()]
        super().__init__(address, [Record(name, image_at(joined(folder, name))) for name in names if name])

    @classmethod
    def accepts(cls, address: str) -> bool:
        return _suffix(address) in SEPARATORS


def _suffix(address: str) -> str:
    return PurePosixPath(address).suffix.lower()


def _column(address: str, text: str, separator: str) -> list[str]:
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    known = {name.strip().lower(): name for name in rows.fieldnames or ()}
    column = next((known[name] for name in COLUMNS if name in known), None)
    if column is None:
        raise UsageError(
            f"{address} has no column of paths: its header must name one of {', '.join(COLUMNS)}, "
            f"and it is {separator.join(rows.fieldnames or ())[:80]!r}."
        )
    return [(row[column] or "").strip() for row in rows]
