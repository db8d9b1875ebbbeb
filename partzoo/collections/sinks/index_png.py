"""Shards as folders of index PNGs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from partzoo.collections.sinks import Sink, names_in
from partzoo.data.annotations import rasterized
from partzoo.parts.formats import FORMATS, Options
from partzoo.parts.parts import Parts

if TYPE_CHECKING:
    import pyarrow

FORMAT = FORMATS[".index.png"]
UNSAFE = re.compile(r'[\x00-\x1f<>:"|?*\\%]|^\.{1,2}$')  # in the name of a file, on one system or another
LONGEST = 200  # bytes of a name, of which file systems allow 255


class IndexPng(Sink):
    """Folders of PNGs whose pixels are part numbers, named as the images' keys with ``.index.png`` after them.

    The slashes of a key are folders. Characters that a file's name cannot hold are written as ``%`` and two digits.
    """

    ending = ""
    folder = True
    stage = "parts"

    @contextmanager
    def writer(self, path: Path, schema: pyarrow.Schema) -> Iterator[Callable[[pyarrow.Table], None]]:
        names, taken = names_in(schema), set[str]()

        def add(table: pyarrow.Table) -> None:
            for row in table.to_pylist():
                size = row["height"], row["width"]
                labels = np.zeros(size, np.uint16)
                for part in row["parts"]:
                    labels[rasterized({"size": list(size), "counts": part["rle"]}, size)] = part["part"]
                file = path / f"{_free(file_name(row['key']), taken)}{FORMAT.ending}"
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as stream:
                    FORMAT.write(Parts(labels, k=len(names), names=names), stream, file, Options())

        yield add


def file_name(key: str) -> str:
    """Return the path of a key's file, without its ending, below the folder of a shard."""
    safe = (UNSAFE.sub(_quoted, each).encode() for each in key.split("/") if each)
    return "/".join(each[:LONGEST].decode(errors="ignore") for each in safe) or "image"


def _quoted(found: re.Match[str]) -> str:
    return "".join(f"%{ord(each):02X}" for each in found[0])


def _free(name: str, taken: set[str]) -> str:
    """Return a name that no other image of the shard has, not even in other cases of letters."""
    free, copies = name, 1
    while free.casefold() in taken:
        copies += 1
        free = f"{name}-{copies}"
    taken.add(free.casefold())
    return free
