"""Save parts to files, and load them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from partzoo.archives import check_zip
from partzoo.data import label_files
from partzoo.errors import PartzooError, UsageError
from partzoo.files import check_version, expand_user, parse_json, reading, write_aside
from partzoo.images.decoding import readable_formats
from partzoo.images.opening import open_image
from partzoo.limits import MAX_PIXELS
from partzoo.parts.formats import ENDINGS, FORMAT, Options, format_of

if TYPE_CHECKING:
    from partzoo.parts.parts import Parts

UNPACKED = 6 * MAX_PIXELS  # bytes of the members of an .npz: labels of 16 bits, the image and descriptors


def save(parts: Parts, path: str | os.PathLike, form: str | None, options: Options) -> None:
    """Write parts in the format that the ending selects; see ``Parts.save``."""
    path = expand_user(path)
    found = format_of(form or path.name)
    if found is None:
        raise UsageError(f"{str(path)!r} has no suffix of a known format: use one of {ENDINGS}.")
    with write_aside(path) as file:
        found.write(parts, file, path, options)


def load(path: str | os.PathLike, image: Any = None, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Read the arguments of ``Parts`` from a file; see ``Parts.load``."""
    path = expand_user(path)
    name = path.name.lower()
    if not name.endswith((".npz", ".index.png", *label_files.SUFFIXES)):
        raise UsageError(
            f"Cannot load parts from {str(path)!r}: only .npz, .index.png and {', '.join(label_files.SUFFIXES)} can be "
            "read back."
        )
    opened = None if image is None else open_image(image)
    if name.endswith(label_files.SUFFIXES):
        size, source = (None, "") if opened is None else (opened.size, opened.source)
        found = label_files.read_labels(path, size=size, names=names, image=source)
        fields = {"labels": found.labels, "k": len(found.names), "names": found.names, "source": found.source}
    else:
        fields = _read(path)
        if names is not None:
            fields["names"] = names
    return fields if opened is None else fields | {"image": opened.pixels, "source": opened.source}


def names_of(path: Path) -> tuple[str, ...]:
    """Return the names of labels that an image states, as an ``.index.png`` of partzoo does, or none."""
    with (
        reading(path, problem="is damaged", fix="save it again"),
        Image.open(path, formats=readable_formats()) as image,
    ):
        return tuple(map(str, parse_json(image.info.get("partzoo", "{}")).get("names", ())))


def _read(path: Path) -> dict[str, Any]:
    with reading(path, problem="is damaged, or was not written by Parts.save", fix="save it again"):
        return _read_npz(path) if path.name.lower().endswith(".npz") else _read_index_png(path)


def _read_index_png(path: Path) -> dict[str, Any]:
    try:
        image = Image.open(path, formats=["PNG"])
    except UnidentifiedImageError:
        raise ValueError("not a PNG file") from None
    with image:
        about = parse_json(image.info.get("partzoo", "{}"))
        check_version(about.get("format"), FORMAT, repr(str(path)), PartzooError)
        labels = np.asarray(image)
    return {"labels": labels, "k": about.get("k"), "names": about.get("names")}


def _read_npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):  # NumPy would take it for a pickle, and advise to allow pickles
            raise ValueError("it is not an .npz archive")
    check_zip(path, UNPACKED)
    with np.load(path, allow_pickle=False) as file:
        written = file["format"] if "format" in file.files else None
        check_version(written, FORMAT, repr(str(path)), PartzooError)
        stored = [key for key in ("descriptors", "image", "confidences") if key in file]
        values = {"labels": file["labels"]} | {key: file[key] for key in stored}
        quality = float(file["quality"]) if "quality" in file.files else 1.0  # absent from older files
        values |= {"k": int(file["k"]), "names": file["names"].tolist(), "source": str(file["source"])}
        return {**values, "quality": quality}
