"""Parts -> files, and back: overlay and index PNG, NPZ, COCO JSON."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from partzoo.errors import PartzooError, UsageError, require
from partzoo.parts import drawing as draw

if TYPE_CHECKING:
    from partzoo.parts.parts import Parts

ENDINGS = ".png (overlay), .index.png (labels), .npz or .json (COCO)"


def save(parts: Parts, path: str | os.PathLike, scale: int | None = None) -> None:
    """Write parts in the form that the ending names; see ``Parts.save``."""
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".index.png"):
        with write_aside(path) as file:
            _write_index_png(parts, file)
    elif name.endswith(".png"):
        picture = parts.overlay(scale=draw.scale_to_see(parts.size) if scale is None else scale)
        with write_aside(path) as file:
            picture.save(file, "PNG")
    elif name.endswith(".npz"):
        arrays = {
            "labels": parts.labels,
            "k": np.array(parts.k),
            "names": np.array(parts.names, dtype=np.str_),
            "source": np.array(parts.source),
            "quality": np.array(parts.quality),
        }
        for key in ("descriptors", "image"):
            if getattr(parts, key) is not None:
                arrays[key] = getattr(parts, key)
        with write_aside(path) as file:
            np.savez_compressed(file, **arrays)
    elif name.endswith(".json"):
        text = json.dumps(parts.to_coco())
        with write_aside(path) as file:
            file.write(text.encode())
    else:
        raise UsageError(f"Cannot tell the form of {str(path)!r} by its ending: use {ENDINGS}.")


def load(path: str | os.PathLike) -> dict[str, Any]:
    """Arguments of ``Parts`` read from an ``.npz`` or ``.index.png``; see ``Parts.load``."""
    path = Path(path)
    name = path.name.lower()
    if not name.endswith((".npz", ".index.png")):
        raise UsageError(f"Cannot load parts from {str(path)!r}: only .npz and .index.png can be read back.")
    try:
        return _read_npz(path) if name.endswith(".npz") else _read_index_png(path)
    except FileNotFoundError:
        raise PartzooError(f"No such file: {str(path)!r}. Check the path.") from None
    except (OSError, ValueError, KeyError, EOFError, SyntaxError, zipfile.BadZipFile) as error:
        raise PartzooError(
            f"{str(path)!r} is damaged, or was not written by Parts.save ({error})."
        ) from error


def to_coco(several: Sequence[Parts], segmentation: Literal["rle", "polygons"] = "rle") -> dict:
    """A COCO dataset: one image per picture, one annotation per present part, one category per part.

    Args:
        several: parts of pictures, with the same k and names; ``source`` becomes ``file_name``.
        segmentation: ``rle``, exact; or ``polygons`` along the pixels' edges, exact but for holes, which
            COCO's polygons cannot have and which come out filled. ``area`` is the part's own in both.

    Returns:
        A dict for ``json.dump``: images, annotations and categories, ids from 1.

    Raises:
        UsageError: an unknown segmentation, or parts of different vocabularies.
        MissingExtraError: RLE without pycocotools.
    """
    if segmentation not in ("rle", "polygons"):
        raise UsageError(f"Unknown segmentation {segmentation!r}. Choose 'rle' or 'polygons'.")
    if len({parts.names for parts in several}) > 1:
        raise UsageError("These pictures do not share their parts: find the parts of all in one call.")
    outlines = _rle if segmentation == "rle" else polygons
    images, annotations = [], []
    for image_id, parts in enumerate(several, 1):
        height, width = parts.size
        images.append({"id": image_id, "file_name": parts.source, "height": height, "width": width})
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
        "info": {"description": "partzoo"},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def polygons(mask: np.ndarray) -> list[list[int]]:
    """Outer boundaries of a mask's 4-connected regions, along the pixels' edges, clockwise.

    On a grid line, corners of the boundary come in pairs that are joined by an edge; rows give the horizontal
    edges, columns the vertical ones, and going from one to the other walks round a region. Where two regions
    touch in one point only, each has its own corner there.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        One list x0, y0, x1, y1, ... per region, in pixel edges (0..W, 0..H), sorted by the first corner.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    filled = nw + ne + sw + se
    touching = (filled == 2) & (nw == se)
    y, x = np.nonzero((filled % 2 == 1) | touching)
    if not len(y):
        return []
    # A touching point is listed twice: first the corner with the edge to its left, then the one to its right.
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
    xs, ys, across, down = x.tolist(), y.tolist(), across.tolist(), down.tolist()
    seen = [False] * len(xs)
    found = []
    for first in range(len(xs)):
        if seen[first]:
            continue
        ring, corner = [], first
        while not seen[corner]:
            other = across[corner]
            seen[corner] = seen[other] = True
            ring += [xs[corner], ys[corner], xs[other], ys[other]]
            corner = down[other]
        if starts_region[first]:
            found.append(ring)
    return found


@contextmanager
def write_aside(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write that takes its name only when all is written.

    Raises:
        PartzooError: the place cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with aside.open("wb") as file:
                yield file
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise PartzooError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error


def _rle(mask: np.ndarray) -> dict:
    coco = require("pycocotools.mask", "coco")
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def _write_index_png(parts: Parts, file: BinaryIO) -> None:
    image = Image.fromarray(parts.labels)
    if parts.labels.dtype == np.uint8:
        image.putpalette(draw.palette(parts.k).tobytes())
    about = PngImagePlugin.PngInfo()
    about.add_itxt("partzoo", json.dumps({"k": parts.k, "names": parts.names}))
    image.save(file, "PNG", pnginfo=about)


def _read_index_png(path: Path) -> dict[str, Any]:
    try:
        image = Image.open(path, formats=["PNG"])
    except UnidentifiedImageError:
        raise ValueError("no PNG") from None
    with image:
        labels = np.asarray(image)
        about = json.loads(image.info.get("partzoo", "{}"))
    return {"labels": labels, "k": about.get("k"), "names": about.get("names")}


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        values = {key: file[key] for key in ("labels", "descriptors", "image") if key in file}
        quality = float(file["quality"]) if "quality" in file.files else 1.0  # older files have none
        values |= {"k": int(file["k"]), "names": file["names"].tolist(), "source": str(file["source"])}
        return {**values, "quality": quality}
