"""Save parts to files, and load them: overlay and index PNG, NPZ, COCO JSON."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from partzoo.errors import PartzooError, UsageError
from partzoo.files import check_version, expand_user, parse_json, reading, write_aside
from partzoo.parts import drawing
from partzoo.parts.coco import to_coco

if TYPE_CHECKING:
    from partzoo.parts.parts import Parts

FORMAT = 1  # version of .npz and .index.png; see check_version
ENDINGS = ".png (overlay), .index.png (labels), .npz or .json (COCO)"


def save(parts: Parts, path: str | os.PathLike, scale: int | None = None, form: str | None = None) -> None:
    """Write parts in the format that the suffix selects; see ``Parts.save``."""
    path = expand_user(path)
    name = form or path.name.lower()
    if name.endswith(".index.png"):
        with write_aside(path) as file:
            _write_index_png(parts, file)
    elif name.endswith(".png"):
        image = parts.overlay(scale=drawing.scale_to_see(parts.size) if scale is None else scale)
        with write_aside(path) as file:
            image.save(file, "PNG")
    elif name.endswith(".npz"):
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT),
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
        text = json.dumps(to_coco([parts], folder=path.parent))
        with write_aside(path) as file:
            file.write(text.encode())
    else:
        raise UsageError(f"{str(path)!r} has no suffix of a known format: use {ENDINGS}.")


def load(path: str | os.PathLike, make: Callable[..., Parts]) -> Parts:
    """Make parts of the arguments in an ``.npz`` or ``.index.png`` file; see ``Parts.load``."""
    path = expand_user(path)
    name = path.name.lower()
    if not name.endswith((".npz", ".index.png")):
        raise UsageError(f"Cannot load parts from {str(path)!r}: only .npz and .index.png can be read back.")
    with reading(path, problem="is damaged, or was not written by Parts.save", fix="save it again"):
        return make(**(_read_npz(path) if name.endswith(".npz") else _read_index_png(path)))


def _write_index_png(parts: Parts, file: BinaryIO) -> None:
    image = Image.fromarray(parts.labels)
    if parts.labels.dtype == np.uint8:
        # 256 colours, so that Pillow stores 8 bits; of fewer bits, torchvision reads other numbers.
        image.putpalette(drawing.palette(parts.k).tobytes().ljust(3 * 256, b"\0"))
    about = PngImagePlugin.PngInfo()
    about.add_itxt("partzoo", json.dumps({"format": FORMAT, "k": parts.k, "names": parts.names}))
    image.save(file, "PNG", pnginfo=about)


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
    with np.load(path, allow_pickle=False) as file:
        written = file["format"] if "format" in file.files else None
        check_version(written, FORMAT, repr(str(path)), PartzooError)
        values = {"labels": file["labels"]} | {key: file[key] for key in ("descriptors", "image") if key in file}
        quality = float(file["quality"]) if "quality" in file.files else 1.0  # absent from older files
        values |= {"k": int(file["k"]), "names": file["names"].tolist(), "source": str(file["source"])}
        return {**values, "quality": quality}
