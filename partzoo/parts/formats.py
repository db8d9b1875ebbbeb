"""The formats that parts can be saved in, each with the ending that selects it.

This module imports little, so that the command line can list the formats at once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

if TYPE_CHECKING:
    from partzoo.parts.parts import Parts

FORMAT = 1  # version of .npz and .index.png; see check_version
Segmentation = Literal["rle", "polygons"]


FAST = 2  # compression of index PNG files


@dataclass(frozen=True)
class Options:
    """Options of some formats.

    Attributes:
        scale: factor of enlargement of an overlay; None enlarges its longer side to about 800 pixels.
        segmentation: form of COCO's masks.
    """

    scale: int | None = None
    segmentation: Segmentation = "rle"


@dataclass(frozen=True)
class Format:
    """A format that parts can be saved in.

    Attributes:
        ending: ending of a file's name that selects the format.
        what: what such a file holds, in a few words.
        write: function that writes parts to an open file; it is called with the file's final path and the options.
        name: name of a file in a folder of results, with ``{}`` for the name of its image.
    """

    ending: str
    what: str
    write: Callable[[Parts, BinaryIO, Path, Options], None]
    name: str


def _overlay(parts: Parts, file: BinaryIO, path: Path, options: Options) -> None:
    from partzoo.parts.drawing import scale_to_see

    scale = scale_to_see(parts.size) if options.scale is None else options.scale
    # Runs of equal bytes are most of what deflate finds in the differences of a photograph: less time, and fewer bytes.
    parts.overlay(scale=scale).save(file, "PNG", compress_type=zlib.Z_RLE)


def _index_png(parts: Parts, file: BinaryIO, path: Path, options: Options) -> None:
    import numpy as np
    from PIL import Image, PngImagePlugin

    from partzoo.parts.drawing import palette

    image = Image.fromarray(parts.labels)
    if parts.labels.dtype == np.uint8:
        # 256 colours, so that Pillow stores 8 bits; of fewer bits, torchvision reads other numbers.
        image.putpalette(palette(parts.k).tobytes().ljust(3 * 256, b"\0"))
    about = PngImagePlugin.PngInfo()
    about.add_itxt("partzoo", json.dumps({"format": FORMAT, "k": parts.k, "names": parts.names}))
    image.save(file, "PNG", pnginfo=about, compress_level=FAST)


def _npz(parts: Parts, file: BinaryIO, path: Path, options: Options) -> None:
    import numpy as np

    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "labels": parts.labels,
        "k": np.array(parts.k),
        "names": np.array(parts.names, dtype=np.str_),
        "source": np.array(parts.source),
        "quality": np.array(parts.quality),
    }
    for key in ("descriptors", "image", "confidences"):
        if getattr(parts, key) is not None:
            arrays[key] = getattr(parts, key)
    np.savez_compressed(file, **arrays)


def _coco(parts: Parts, file: BinaryIO, path: Path, options: Options) -> None:
    from partzoo.parts.coco import to_coco

    file.write(json.dumps(to_coco([parts], options.segmentation, path.parent)).encode())


def _labelme(parts: Parts, file: BinaryIO, path: Path, options: Options) -> None:
    from partzoo.parts.labelme import to_labelme

    file.write(json.dumps(to_labelme(parts, path.parent)).encode())


def _geojson(parts: Parts, file: BinaryIO, path: Path, options: Options) -> None:
    from partzoo.parts.geojson import to_geojson

    file.write(json.dumps(to_geojson(parts)).encode())


def _yolo(parts: Parts, file: BinaryIO, path: Path, options: Options) -> None:
    from partzoo.parts.yolo import to_yolo

    file.write(to_yolo(parts).encode())


# An ending that ends with another one comes before it. LabelMe finds the file of an image by its plain name, and
# ultralytics finds the labels of images/a.jpg in labels/a.txt.
FORMATS = {
    each.ending: each
    for each in (
        Format(".index.png", "labels", _index_png, "{}.index.png"),
        Format(".png", "overlay", _overlay, "{}.png"),
        Format(".npz", "everything", _npz, "{}.npz"),
        Format(".labelme.json", "LabelMe", _labelme, "{}.json"),
        Format(".json", "COCO", _coco, "{}.json"),
        Format(".geojson", "GeoJSON, QuPath", _geojson, "{}.geojson"),
        Format(".txt", "YOLO", _yolo, "labels/{}.txt"),
    )
}
ENDINGS = ", ".join(f"{each.ending} ({each.what})" for each in FORMATS.values())


def format_of(name: str) -> Format | None:
    """Return the format that a file's name selects, or None."""
    return next((each for each in FORMATS.values() if name.lower().endswith(each.ending)), None)
