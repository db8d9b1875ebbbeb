"""Read the results of ``partzoo discover`` back, without a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partzoo.data.annotations import rasterized
from partzoo.errors import ImageError, PartzooError, UsageError
from partzoo.files import expand_user, parse_json, reading
from partzoo.images.opening import open_image
from partzoo.limits import MAX_BYTES, MAX_PARTS, MAX_PIXELS
from partzoo.parts.parts import Parts

ENDINGS = (".npz", ".json")


@dataclass(frozen=True)
class Results:
    """Results of ``partzoo discover``: ``.npz`` files and COCO files.

    Attributes:
        files: the files, each with the parts of one image, or of many images if it is a COCO file.
        max_pixels: largest image to read for a COCO file, which does not hold its images.
        max_bytes: largest file of such an image.
    """

    files: Sequence[Path]
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES

    def __iter__(self) -> Iterator[Parts]:
        """Yield the parts of each image, one at a time.

        Raises:
            PartzooError: a file is damaged, or is not a result of ``partzoo discover``.
        """
        for file in self.files:
            if file.suffix.lower() == ".npz":
                yield Parts.load(file)
            else:
                yield from self._of_coco(file)

    def count(self) -> int:
        """Return the number of images."""
        return sum(1 if file.suffix.lower() == ".npz" else len(_coco(file)["images"]) for file in self.files)

    def _of_coco(self, file: Path) -> Iterator[Parts]:
        dataset = _coco(file)
        with reading(file, problem="is damaged, or was not written by partzoo", fix="write it again"):
            names = [str(each["name"]) for each in dataset["categories"]]
            marked: dict[Any, list[dict]] = {}
            for annotation in dataset["annotations"]:
                marked.setdefault(annotation["image_id"], []).append(annotation)
            for about in dataset["images"]:
                labels = self._labels(about, marked.get(about["id"], []), len(names))
                yield self._parts(about, file.parent, labels, names)

    def _labels(self, about: dict, annotations: list[dict], k: int) -> np.ndarray:
        size = (int(about["height"]), int(about["width"]))
        if min(size) < 1 or size[0] * size[1] > self.max_pixels:
            raise ValueError(f"an image of {size[1]} x {size[0]} pixels is out of range")
        labels = np.zeros(size, np.uint16)
        for annotation in annotations:
            part = annotation["category_id"]
            if not isinstance(part, int) or not 1 <= part <= k:
                raise ValueError(f"the category {part!r:.40} does not exist")
            labels[rasterized(annotation["segmentation"], size)] = part
        return labels

    def _parts(self, about: dict, folder: Path, labels: np.ndarray, names: list[str]) -> Parts:
        """Return the parts, with their image if it is where the file says, and has its size."""
        source, image = str(about["file_name"]), None
        for path in (folder / source, Path(source)):  # relative to the file, or to where the command ran
            if "://" not in source and path.is_file():
                try:
                    image = open_image(path, max_pixels=self.max_pixels, max_bytes=self.max_bytes).pixels
                except ImageError:
                    continue
                if image.shape[:2] == labels.shape:
                    break
                image = None
        return Parts(labels, k=len(names), image=image, names=names, source=source, quality=math.nan)


def results_of(path: str, **limits: int) -> Results | None:
    """Return the results that a path names, or None if it names images.

    Args:
        path: an ``.npz`` or ``.json`` file, or a folder that holds such files. In a folder, a ``.json`` file counts
            only if partzoo wrote it: a folder of images may hold annotations by others.
        limits: ``max_pixels`` and ``max_bytes`` of the images of COCO files.

    Raises:
        UsageError: the folder holds index PNGs, which do not hold their images.
    """
    place = expand_user(path)
    if place.is_dir():
        files = [each for each in sorted(place.iterdir()) if each.is_file() and _is_result(each)]
        if not files and any(each.name.lower().endswith(".index.png") for each in place.iterdir()):
            raise UsageError(
                f"{path!r} holds index PNGs, which do not contain their images: "
                "run 'partzoo discover --format .npz' on the images, or name their folder."
            )
        return Results(files, **limits) if files else None
    if place.suffix.lower() in ENDINGS and place.exists():
        return Results([place], **limits)
    return None


def _is_result(file: Path) -> bool:
    if file.suffix.lower() != ".json":
        return file.suffix.lower() == ".npz"
    try:
        return "partzoo_format" in _coco(file).get("info", ())
    except PartzooError:
        return False


def _coco(file: Path) -> dict:
    """Read a COCO file and check its outline.

    Raises:
        PartzooError: the file cannot be read, or is not a COCO file.
    """
    with reading(file, problem="cannot be read as JSON", fix="write it again"):
        dataset = parse_json(file.read_bytes())
    lists = ("images", "annotations", "categories")
    if not isinstance(dataset, dict) or not all(isinstance(dataset.get(name), list) for name in lists):
        raise PartzooError(f"{str(file)!r} is not a COCO file: it has no {', '.join(lists)}.")
    if len(dataset["categories"]) > MAX_PARTS:
        raise PartzooError(f"{str(file)!r} has more than {MAX_PARTS:,} categories: it was not written by partzoo.")
    return dataset
