"""Convert parts to an annotation file of LabelMe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from partzoo.parts.outlines import pieces

if TYPE_CHECKING:
    from partzoo.parts.parts import Parts

FORMAT = 1  # version of the fields that partzoo adds to the format
VERSION = "6.3.1"  # of LabelMe, which warns about files of another major version


def to_labelme(parts: Parts, folder: str | os.PathLike | None = None) -> dict:
    """Convert parts to LabelMe's JSON, with one polygon for each 4-connected piece of a part.

    Polygons follow the edges of pixels, and slits of no width lead to the holes. No shapes share a group: some readers
    would give them one label.

    Args:
        parts: parts of one image.
        folder: folder of the file, which the image's path is written relative to; None writes it as it is.

    Returns:
        A dictionary for ``json.dump``. LabelMe keeps its entry ``partzoo``, with the names of all parts, when it saves
        the file.
    """
    height, width = parts.size
    shapes: list[dict] = [
        {
            "label": parts.names[part - 1],
            "points": [list(corner) for corner in piece.polygon],
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for part in parts.present
        for piece in pieces(parts.mask(part))
    ]
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": _image_path(parts.source, folder),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
        "partzoo": {"format": FORMAT, "names": list(parts.names)},
    }


def _image_path(source: str, folder: str | os.PathLike | None) -> str:
    """Return the path from the file to its image."""
    if folder is None or not source or "://" in source:
        return source
    try:
        return Path(os.path.relpath(source, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return os.path.abspath(source)
