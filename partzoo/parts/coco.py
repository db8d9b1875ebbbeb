"""Convert parts to a dataset in COCO format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import partzoo
from partzoo.errors import UsageError, require
from partzoo.parts.outlines import polygons

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
        segmentation: ``"rle"``, or ``"polygons"`` along the edges of pixels, with slits of no width to the holes.
            pycocotools reads exactly the same masks from both; readers that fill the edges of polygons as well get
            masks that are one pixel wider and higher from polygons.
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
    outlines = run_lengths if segmentation == "rle" else polygons
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, parts in enumerate(several, 1):
        height, width = parts.size
        images.append({"id": image_id, "file_name": _file_name(parts.source, folder), "height": height, "width": width})
        for part in parts.present:
            mask, area, box = outlines(parts.mask(part)), int(parts.areas[part - 1]), parts.boxes[part - 1].tolist()
            annotations.append(annotation(len(annotations) + 1, image_id, part, mask, area, box))
    return dataset_of(images, annotations, several[0].names if several else ())


def annotation(number: int, image: int, part: int, segmentation: Any, area: int, box: Sequence[int]) -> dict[str, Any]:
    """Return COCO's annotation of a part.

    Args:
        number: id of the annotation.
        image: id of the image.
        part: number of the part, which is the category's id.
        segmentation: run lengths or polygons of the mask.
        area: number of pixels.
        box: left, top, right and bottom in pixels, the last two exclusive.
    """
    left, top, right, bottom = box
    return {
        "id": number,
        "image_id": image,
        "category_id": part,
        "segmentation": segmentation,
        "area": area,
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": 0,
    }


def dataset_of(images: list[dict], annotations: list[dict], names: Sequence[str]) -> dict[str, Any]:
    """Return a COCO dataset of these images and annotations, with a category for each name of a part."""
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


def run_lengths(mask: np.ndarray) -> dict:
    """Encode a mask ``(H, W)`` as COCO's compressed run lengths, with keys ``size`` and ``counts``.

    Raises:
        MissingExtraError: pycocotools is not installed.
    """
    coco = require("pycocotools.mask", "coco")
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
