"""Shards as COCO."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partzoo.collections.sinks import Sink, names_in
from partzoo.parts.coco import annotation, dataset_of

if TYPE_CHECKING:
    import pyarrow


class Coco(Sink):
    """COCO datasets of parts, each complete in itself: ``file_name`` is the image's key, and a category is a part.

    Masks are compressed run lengths. All annotations of a shard are in memory.
    """

    ending = ".json"
    stage = "parts"

    @contextmanager
    def writer(self, path: Path, schema: pyarrow.Schema) -> Iterator[Callable[[pyarrow.Table], None]]:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []

        def add(table: pyarrow.Table) -> None:
            for row in table.to_pylist():
                size = {"height": row["height"], "width": row["width"]}
                images.append({"id": len(images) + 1, "file_name": row["key"], **size})
                for part in row["parts"]:
                    mask = {"size": list(size.values()), "counts": part["rle"]}
                    found = annotation(len(annotations) + 1, len(images), part["part"], mask, part["area"], part["box"])
                    annotations.append(found)

        yield add
        path.write_text(json.dumps(dataset_of(images, annotations, names_in(schema))), encoding="utf-8")
