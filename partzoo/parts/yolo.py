"""Convert parts to YOLO's segmentation labels, and collect them in a data set that ultralytics trains on."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from partzoo.errors import UsageError
from partzoo.files import write_aside, write_if_changed
from partzoo.parts.outlines import pieces
from partzoo.places import make_folder

if TYPE_CHECKING:
    from partzoo.parts.parts import Parts

COPIED = (".bmp", ".jpeg", ".jpg", ".png", ".webp")  # suffixes of images that ultralytics reads as they are


def to_yolo(parts: Parts) -> str:
    """Convert parts to a label file with one line for each 4-connected piece of a part.

    A line is the class (the part's number minus one) and the corners x, y of the piece's polygon along the edges of
    pixels, as shares of the image's width and height, with slits of no width to the holes.

    Returns:
        The lines; no line if the image has no part, which marks an image without objects.
    """
    height, width = parts.size
    return "".join(
        " ".join([str(part - 1), *(f"{x / width:.9g} {y / height:.9g}" for x, y in piece.polygon)]) + "\n"
        for part in parts.present
        for piece in pieces(parts.mask(part))
    )


def data_yaml(names: Sequence[str]) -> str:
    """Return the file that describes a data set: the folder of images, for training and validation, and the names."""
    lines = [f"  {number}: {_quoted(name)}\n" for number, name in enumerate(names)]
    return "train: images\nval: images\nnames:\n" + "".join(lines)


def add_to_dataset(parts: Parts, folder: str | os.PathLike, name: str) -> None:
    """Add the parts of one image to a data set for ``yolo train data=FOLDER/data.yaml``.

    Writes ``labels/NAME.txt`` and ``images/NAME.*`` (a copy of the image's file or, if that is not a file in a format
    that ultralytics reads, a PNG), and ``data.yaml`` if it is missing or has other names.

    Args:
        parts: parts of the image, with the same names as those of the data set's other images.
        folder: folder of the data set; it is created if it is missing.
        name: name of the image's files, without a suffix.

    Raises:
        UsageError: the source of the parts is not a file, and they do not hold their image.
        PartzooError: a file cannot be written.
    """
    folder = Path(folder)
    content, suffix = _image_file(parts)
    for place in ("images", "labels"):
        make_folder(folder / place)
    write_if_changed(folder / "images" / f"{name}{suffix}", content)
    write_if_changed(folder / "data.yaml", data_yaml(parts.names).encode())
    with write_aside(folder / "labels" / f"{name}.txt") as file:
        file.write(to_yolo(parts).encode())


def _image_file(parts: Parts) -> tuple[bytes, str]:
    source = Path(parts.source)
    if source.suffix.lower() in COPIED and source.is_file():
        return source.read_bytes(), source.suffix
    if parts.image is None:
        raise UsageError("These parts do not hold their image: make them with image=.")
    data = io.BytesIO()
    Image.fromarray(parts.image).save(data, "PNG")
    return data.getvalue(), ".png"


def _quoted(text: str) -> str:
    """Quote text for YAML, which does not know all escapes of JSON and refuses control characters."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'
