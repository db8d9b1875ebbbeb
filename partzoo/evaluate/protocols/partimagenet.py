"""``partimagenet-ood``, ``-seg`` and ``-partformer``: protocols on PartImageNet, with masks of 40 parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from partzoo.data.annotations import (
    UnusableError,
    box_corners,
    check_area,
    check_segmentation,
    rasterized,
    turn_to_image,
    usable,
    warn_passed_over,
)
from partzoo.data.reading import (
    Example,
    Examples,
    check_any,
    check_split,
    need,
    read_json,
    read_rows,
    squash,
    squash_mask,
    squash_plain,
)
from partzoo.errors import UsageError
from partzoo.evaluate.protocols.base import PartProtocol
from partzoo.files import reading
from partzoo.images.opening import open_image

PARTS = BACKGROUND = 40
GRID = 128
CLASSES = 110  # as in PartFormer's code; its paper states 109
SPLITS = ("train", "test")
FIELDS = ("id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd")
_FROM = "Download PartImageNet from https://github.com/TACJu/PartImageNet"
GET_OOD = (
    f"{_FROM} (PartImageNet_OOD, PDiscoNet's split) and give the folder that holds train/, train_train.json and "
    "train_test.json (--data DIR)."
)
GET_SEG = (
    f"{_FROM} (PartImageNet_Seg) and give the folder that holds images/train, images/test, "
    "annotations/train/train.json and annotations/test/test.json (--data DIR)."
)
GET_PARTFORMER = (
    f"{_FROM}, prepare it as https://github.com/robertdvdk/part_detection (PDiscoNet) describes, and give the folder "
    "that holds newdset.txt, train.json, train_train/ and train_test/ (--data DIR)."
)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with its size ``(height, width)`` and its annotations, one COCO dictionary each."""

    file: Path
    size: tuple[int, int]
    annotations: Sequence[dict]
    category: int | None = None


def load_ood(data: str | Path, split: str, side: int = 224) -> Examples:
    """Read images squashed to ``side`` x ``side`` pixels, masks to 128 x 128; ``split`` is train or test.

    Raises:
        UsageError: the split is unknown, or the data is missing or damaged.
        MissingExtraError: pycocotools is not installed.
    """
    check_split("partimagenet-ood", split, SPLITS)
    data = need("partimagenet-ood", data, ("train", f"train_{split}.json"), GET_OOD)
    return _annotated(data / f"train_{split}.json", data / "train", side)


def load_seg(data: str | Path, split: str, side: int = 224) -> Examples:
    """Read PartImageNet_Seg, with all 158 classes, in the same way as :func:`load_ood`."""
    check_split("partimagenet-seg", split, SPLITS)
    listed = f"annotations/{split}/{split}.json"
    data = need("partimagenet-seg", data, (f"images/{split}", listed), GET_SEG)
    return _annotated(data / listed, data / "images" / split, side)


def load_partformer(data: str | Path, split: str, side: int = 256) -> Examples:
    """Read the data as prepared for PDiscoNet and framed as in PartFormer, with the class of each image."""
    check_split("partimagenet-partformer", split, SPLITS)
    data = need("partimagenet-partformer", data, ("newdset.txt", "train.json", f"train_{split}"), GET_PARTFORMER)
    images = _images(data / "train.json", data)

    def row(fields: list[str]) -> AnnotatedImage | None:
        number, is_test, label, folder, name = fields
        known = images[int(number)]
        if int(is_test) != (split == "test") or not _is_sized(known.size):
            return None
        return AnnotatedImage(data / f"train_{split}" / folder / name, known.size, known.annotations, int(label))

    try:
        rows = read_rows(data / "newdset.txt", "index, test, label, class, image, with tabs between", row, "\t")
    except KeyError as error:
        raise UsageError(f"{data / 'newdset.txt'} names image {error}, which {data / 'train.json'} lacks.") from error
    images_of_split = [each for each in rows if each]
    check_any(data / "newdset.txt", images_of_split, f"images of the split {split}")
    return Examples(images_of_split, partial(_partformer_example, side=side), _name)


def _annotated(file: Path, folder: Path, side: int) -> Examples:
    """Read images that have a usable annotation; the others have no ground truth and are left out.

    Classes are numbered in the order of their names, which begin the file names.
    """
    images = [each for each in _images(file, folder).values() if any(map(_counts, each.annotations))]
    if not images:
        raise UsageError(f"{file} has no image with annotated parts. Download the file again.")
    names = [each.file.name.partition("_")[0] for each in images]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    images = [replace(each, category=numbers[name]) for each, name in zip(images, names, strict=True)]
    return Examples(images, partial(_mpae_example, side=side), _name)


def _name(image: AnnotatedImage) -> str:
    return str(image.file)


def _images(file: Path, folder: Path) -> dict[int, AnnotatedImage]:
    """Read the images of a COCO file by id; unusable annotations are skipped with a warning."""
    found = read_json(file)
    with reading(file, UsageError, "is not in COCO's format"):
        sizes = {each["id"]: (each.get("height"), each.get("width")) for each in found["images"]}
        names = {each["id"]: folder / each["file_name"] for each in found["images"]}
        unsized = [name for name, size in sizes.items() if not _is_sized(size)]

        def check(annotation: dict) -> None:
            _check(annotation, sizes)

        annotations: dict[int, list[dict[str, Any]]] = {}
        for each in usable(file, found["annotations"], FIELDS, check):
            annotations.setdefault(each["image_id"], []).append({name: each[name] for name in FIELDS})
    warn_passed_over(file, [(f"image {name}", "its height and width are not stated") for name in unsized])
    return {name: AnnotatedImage(names[name], size, annotations.get(name, ())) for name, size in sizes.items()}


def _is_sized(size: tuple[Any, Any]) -> bool:
    return all(isinstance(side, int) for side in size)


def _check(annotation: dict, sizes: dict[int, tuple[int, int]]) -> None:
    if not 0 <= annotation["category_id"] < PARTS:
        raise UnusableError(f"its category_id is {annotation['category_id']}; parts are 0..{PARTS - 1}")
    if annotation["image_id"] not in sizes:
        raise UnusableError(f"its image {annotation['image_id']} is not listed")
    if not _is_sized(sizes[annotation["image_id"]]):
        raise UnusableError(f"the size of its image {annotation['image_id']} is not stated")
    check_area(annotation)
    if _counts(annotation):
        size = sizes[annotation["image_id"]]
        check_segmentation(_with_boxes(annotation, size), size)


def part_mask(annotations: Iterable[dict], size: tuple[int, int]) -> np.ndarray:
    """Return the part of every pixel: its most frequent annotated category, the lowest if tied; 40 if it has none.

    Args:
        annotations: COCO annotations with ``category_id`` 0..39; crowds and those of zero area are skipped. A polygon
            of four numbers is replaced by the annotation's box.
        size: ``(height, width)``.

    Returns:
        ``(height, width)`` int64, 0..40.

    Raises:
        UnusableError: a segmentation is damaged.

    Source: MPAE's code (PartImageNet).
    """
    counting = sorted(filter(_counts, annotations), key=lambda annotation: annotation["category_id"])
    found, most = np.full(size, BACKGROUND), np.zeros(size, np.int32)
    for category, members in groupby(counting, key=lambda annotation: annotation["category_id"]):
        votes = np.zeros(size, np.int32)
        for each in members:
            votes += rasterized(_with_boxes(each, size), size)
        found[votes > most] = category
        np.maximum(most, votes, out=most)
    return found


def _counts(annotation: dict) -> bool:
    return not annotation["iscrowd"] and annotation["area"] > 0


def _with_boxes(annotation: dict, size: tuple[int, int]) -> Any:
    """Return the segmentation with each polygon of four numbers replaced by the annotation's box."""
    shape = annotation["segmentation"]
    if not isinstance(shape, list):
        return shape
    are_boxes = [isinstance(each, list) and len(each) == 4 for each in shape]
    box = box_corners(annotation["bbox"], size) if any(are_boxes) else None
    return [box if is_box else each for is_box, each in zip(are_boxes, shape, strict=True)]


def _opened(image: AnnotatedImage) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels and the mask of an image; the sizes are compared before the mask is drawn."""
    pixels = open_image(image.file).pixels
    turn = turn_to_image(image.file, pixels.shape[:2], image.size, str(image.file), "its annotations are of")
    return pixels, squash_mask(turn(part_mask(image.annotations, image.size)), GRID)


def _mpae_example(image: AnnotatedImage, side: int) -> Example:
    pixels, mask = _opened(image)
    return Example(squash(pixels, side), mask=mask, category=image.category)


def _partformer_example(image: AnnotatedImage, side: int) -> Example:
    pixels, mask = _opened(image)
    return Example(squash_plain(pixels, side), mask=mask, category=image.category)


_MASKS = (
    " The true labels are 40 part categories and background. Polygons are rasterized by pycocotools. Crowds and "
    "annotations without area are skipped, and a polygon of four numbers is the box of its annotation. A pixel "
    "belongs to the category that most annotations give it. On a tie, the category with the lower number wins. "
    "Masks are resized to 128 x 128 (nearest: cell i takes pixel floor(i H / 128)), the grid on which maps are "
    "read."
)
_MPAE = (
    " The image is squashed to 224 x 224 (antialiased bilinear)."
    + _MASKS
    + " Images without such an annotation are left out. NMI and ARI are taken over all pixels, including the "
    "background, and are pooled over the test split. FG-NMI and FG-ARI, which the code does not compute, are ours. "
    "They are taken over the pixels of the 40 parts, each of which takes its strongest foreground channel."
)

PARTIMAGENET_OOD = PartProtocol(
    name="partimagenet-ood",
    load=load_ood,
    truths=PARTS + 1,
    grid=GRID,
    background=BACKGROUND,
    source="MPAE, section 4 and its code (PartImageNet OOD)",
    rules="The split is that of PDiscoNet, with 109 classes." + _MPAE,
    get=GET_OOD,
)

PARTIMAGENET_SEG = PartProtocol(
    name="partimagenet-seg",
    load=load_seg,
    truths=PARTS + 1,
    grid=GRID,
    background=BACKGROUND,
    source="MPAE, section 4 and its code (PartImageNet Seg)",
    rules="The data has 158 classes, and the validation split is not used." + _MPAE,
    get=GET_SEG,
)

PARTIMAGENET_PARTFORMER = PartProtocol(
    name="partimagenet-partformer",
    load=load_partformer,
    truths=PARTS + 1,
    grid=GRID,
    background=BACKGROUND,
    classes=CLASSES,
    source="PartFormer, sections 4.1 and 4.2, and its code (PartImageNet)",
    rules=(
        "The image is squashed to 256 x 256 without antialiasing, and the parts of each class are counted separately."
        + _MASKS
        + " Images without an annotation are entirely background. NMI and ARI are taken over all pixels, including the "
        "background. These rules differ from the published code, which rasterizes with skimage, assigns the parts of "
        "an annotation with several polygons to wrong categories, and counts part 0 of class 1 as background."
    ),
    get=GET_PARTFORMER,
)
