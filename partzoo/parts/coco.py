"""Convert parts to a dataset in COCO format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

import partzoo
from partzoo.errors import UsageError, require

if TYPE_CHECKING:
    from partzoo.parts.parts import Parts

FORMAT = 1  # version of the fields that partzoo adds to the format


def to_coco(
    several: Sequence[Parts],
    segmentation: Literal["rle", "polygons"] = "rle",
    folder: str | os.PathLike | None = None,
) -> dict:
    """Convert parts to a COCO dataset, with one annotation for each present part and one category for each part.

    Args:
        several: parts of each image, with the same k and names; ``source`` becomes ``file_name``. Images without parts
            are listed too.
        segmentation: ``"rle"``, which is exact, or ``"polygons"`` along the edges of pixels, which are exact except
            that holes are filled, because COCO's polygons cannot have any. In both, ``area`` is the area of the part
            without its holes.
        folder: folder of the dataset; paths of images below it are written relative to it.

    Returns:
        A dictionary for ``json.dump`` with info, licenses, images, annotations and categories; ids start at 1.

    Raises:
        UsageError: the segmentation is unknown, or the parts do not share one vocabulary.
        MissingExtraError: pycocotools, which RLE needs, is not installed.
    """
    if segmentation not in ("rle", "polygons"):
        raise UsageError(f"Unknown segmentation {segmentation!r}. Choose 'rle' or 'polygons'.")
    if len({parts.names for parts in several}) > 1:
        raise UsageError("These images do not share their parts: discover the parts of all images in one call.")
    outlines = _rle if segmentation == "rle" else polygons
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, parts in enumerate(several, 1):
        height, width = parts.size
        images.append({"id": image_id, "file_name": _file_name(parts.source, folder), "height": height, "width": width})
        for part in parts.present:
            left, top, right, bottom = parts.boxes[part - 1].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": part,
                    "segmentation": outlines(parts.mask(part)),
                    "area": int(parts.areas[part - 1]),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )
    names = several[0].names if several else ()
    categories = [{"id": i, "name": name, "supercategory": "part"} for i, name in enumerate(names, 1)]
    return {
        "info": {
            "description": f"parts found by partzoo {partzoo.__version__}",
            "version": partzoo.__version__,
            "partzoo_format": FORMAT,
        },
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


KEYS = ("info", "licenses", "images", "annotations", "categories")  # of a dataset


def joined(read: Callable[[], Iterable[dict]]) -> Iterator[str]:
    """Join COCO datasets of one image each, with the same categories, into one dataset, with ids from 1.

    Args:
        read: function that returns the datasets, at least one. It is called twice, so that only one dataset is in
            memory at a time.

    Yields:
        The JSON of the joined dataset, piece by piece.
    """
    for number, dataset in enumerate(read(), 1):
        if number == 1:
            yield json.dumps({name: dataset[name] for name in ("info", "licenses")})[:-1] + ', "images": ['
        yield (", " if number > 1 else "") + json.dumps(dataset["images"][0] | {"id": number})
    yield '], "annotations": ['
    count = 0
    for number, dataset in enumerate(read(), 1):
        for annotation in dataset["annotations"]:
            count += 1
            yield (", " if count > 1 else "") + json.dumps(annotation | {"id": count, "image_id": number})
    yield '], "categories": ' + json.dumps(dataset["categories"]) + "}"


def _file_name(source: str, folder: str | os.PathLike | None) -> str:
    """Return an image's path for COCO, relative to the dataset's folder if the image is inside it."""
    if folder is None or not source or "://" in source:
        return source
    path, base = Path(os.path.abspath(source)), Path(os.path.abspath(folder))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else source


def polygons(mask: np.ndarray) -> list[list[int]]:
    """Trace the outer boundaries of a mask's 4-connected regions, along the pixels' edges, clockwise.

    On each grid line, the corners of the boundary come in pairs that are joined by an edge. Rows contain the horizontal
    edges and columns the vertical ones; alternating between the two walks round a region. Where two regions touch in a
    single point, each has a separate corner there.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        One list x0, y0, x1, y1, ... for each region, in pixel edges (0..W, 0..H), sorted by the first corner.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    filled = nw + ne + sw + se
    touching = (filled == 2) & (nw == se)
    y, x = np.nonzero((filled % 2 == 1) | touching)
    if not len(y):
        return []
    # A point where regions touch is listed twice: first the corner with the edge on its left, then on its right.
    twice = touching[y, x]
    falling = twice & (nw[y, x] == 1)
    repeats = np.where(twice, 2, 1)
    second = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    y, x, falling, twice = (np.repeat(a, repeats) for a in (y, x, falling, twice))
    below = np.where(twice & ~falling, 1 - second, second)
    across = np.empty(len(y), np.int64)
    down = np.empty(len(y), np.int64)
    for partner, order in ((across, np.arange(len(y))), (down, np.lexsort((below, y, x)))):
        partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]

    starts_region = (se[y, x] == 1).tolist()
    xs, ys, in_row, in_column = x.tolist(), y.tolist(), across.tolist(), down.tolist()
    seen = [False] * len(xs)
    found = []
    for first in range(len(xs)):
        if seen[first]:
            continue
        ring: list[int] = []
        corner = first
        while not seen[corner]:
            other = in_row[corner]
            seen[corner] = seen[other] = True
            ring += [xs[corner], ys[corner], xs[other], ys[other]]
            corner = in_column[other]
        if starts_region[first]:
            found.append(ring)
    return found


def _rle(mask: np.ndarray) -> dict:
    coco = require("pycocotools.mask", "coco")
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
