"""``cub`` and ``cub-partformer``: protocols on CUB-200-2011, images of birds with 15 landmarks."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from partzoo.data.reading import (
    Example,
    Examples,
    check_any,
    check_split,
    floats,
    need,
    read_rows,
    read_usable_rows,
    sample,
    squash,
    squash_plain,
    stretch,
)
from partzoo.errors import UsageError
from partzoo.evaluate.protocols.base import LandmarkError, PartProtocol
from partzoo.images.opening import open_image

LANDMARKS = 15
FARTHEST = 1e5  # largest coordinate in pixels; CUB's images have at most 500 pixels, but may have been enlarged
SPLITS = ("train", "test")
LISTS = ("images.txt", "train_test_split.txt", "bounding_boxes.txt", "parts/part_locs.txt")
GET = (
    "Download CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011/, unpack it, and give the "
    f"folder CUB_200_2011 with images/ and {', '.join(LISTS)} (--data DIR)."
)


@dataclass(frozen=True)
class Bird:
    """File, class, bounding box and landmarks of one image of CUB; coordinates are in pixels."""

    file: Path
    category: int
    box: np.ndarray
    points: np.ndarray
    visible: np.ndarray


def load(data: str | Path, split: str, side: int = 448) -> Examples:
    """Read birds as framed by MPAE, squashed to ``side`` x ``side`` pixels; ``split`` is train (5,994) or test (5,794).

    Unusable lines of boxes and landmarks are skipped with a warning, and so are their birds.

    Raises:
        UsageError: the split is unknown, or the data is missing or damaged.
    """
    return _birds(data, split, partial(_mpae_example, side=side))


def load_partformer(data: str | Path, split: str, side: int = 256) -> Examples:
    """Read birds as framed by PartFormer: squashed without antialiasing, then enlarged by ``side / (side - 1)``."""
    return _birds(data, split, partial(_partformer_example, side=side))


def of_category(birds: Examples, category: str) -> Examples:
    """Select the birds of one class, by its number from 1 or by the name of its folder.

    Raises:
        UsageError: there is no bird of this class.
    """
    chosen = [bird for bird in birds.records if category in (str(bird.category + 1), bird.file.parent.name)]
    if not chosen:
        names = sorted({bird.file.parent.name for bird in birds.records})
        close = difflib.get_close_matches(category, names, n=1, cutoff=0)[0]
        raise UsageError(
            f"category={category!r}: there is no bird of this class. Use its number, such as 1, or the name of its "
            f"folder. The closest is {close!r}."
        )
    return Examples(chosen, birds.read, birds.name_of)


def _birds(data: str | Path, split: str, read: Callable[[Bird], Example]) -> Examples:
    check_split("cub", split, SPLITS)
    data = need("cub", data, ("images", *LISTS), GET)
    images, splits, boxes, parts = (data / name for name in LISTS)
    files = dict(read_rows(images, "id class/image", lambda row: (int(row[0]), (_class(row[1]), row[1]))))
    train = dict(read_rows(splits, "id 0-or-1", lambda row: (_known(row[0], files), int(row[1]))))
    _check_complete(splits, len(train), len(files), "images")
    rows, skipped = read_usable_rows(boxes, "id x y width height", lambda row: (_known(row[0], files), _box(row)))
    box = dict(rows)
    _check_complete(boxes, len(box) + skipped, len(files), "images")
    points = {bird: np.full((LANDMARKS, 3), np.nan) for bird in files}

    def note(row: list[str]) -> None:
        points[_known(row[0], files)][range(1, LANDMARKS + 1).index(int(row[1]))] = _landmark(row)

    _, skipped = read_usable_rows(parts, "id part x y visible", note)
    noted = sum(int(np.isfinite(found).all(1).sum()) for found in points.values())
    _check_complete(parts, noted + skipped, LANDMARKS * len(files), "landmarks")
    usable = [bird for bird in files if bird in box and np.isfinite(points[bird]).all()]
    birds = [
        Bird(data / "images" / file, category, box[bird], points[bird][:, :2], points[bird][:, 2] > 0.5)
        for bird, (category, file) in ((bird, files[bird]) for bird in usable)
        if train[bird] == (split == "train")
    ]
    check_any(splits, birds, f"images of the split {split}")
    return Examples(birds, read, lambda bird: str(bird.file))


def _check_complete(file: Path, found: int, needed: int, what: str) -> None:
    """Refuse a file with too few lines, counting those that are skipped: it is truncated."""
    if found < needed:
        raise UsageError(f"{file} has lines for {found} of the {needed} {what}. Download the file again.")


def _box(row: list[str]) -> np.ndarray:
    box = _near(floats(row[1:5], 4))
    if (box[2:] <= 0).any():
        raise ValueError("the box has no area")
    return box


def _landmark(row: list[str]) -> np.ndarray:
    return _near(floats(row[2:5], 3))


def _near(numbers: np.ndarray) -> np.ndarray:
    if (np.abs(numbers) > FARTHEST).any():
        raise ValueError("it is far outside its image")
    return numbers


def _known(field: str, files: dict) -> int:
    if int(field) not in files:
        raise ValueError(f"images.txt has no {field}")
    return int(field)


def _class(path: str) -> int:
    """Return the number, from 0, of the class whose folder holds an image: ``001.Black_footed_Albatross/...``."""
    return int(path.partition(".")[0]) - 1


def _mpae_example(bird: Bird, side: int) -> Example:
    pixels = open_image(bird.file).pixels
    scale = stretch(pixels, side)
    box = tuple(bird.box * np.tile(scale, 2))
    return Example(squash(pixels, side), bird.points * scale, bird.visible, box=box, category=bird.category)


def _partformer_example(bird: Bird, side: int) -> Example:
    pixels = open_image(bird.file).pixels
    scale = stretch(pixels, side) * side / (side - 1)
    at = np.arange(side) * (side - 1) / side
    points = bird.points * scale
    inside = (points > 0) & (points <= side)
    return Example(
        sample(squash_plain(pixels, side), at, at),
        np.where(inside, points, 0.5),
        bird.visible & inside.all(1),
        box=tuple(bird.box * np.tile(scale, 2)),
        category=bird.category,
    )


_ERROR = LandmarkError("box", centroids="soft", standardize=True, active=0.5)
_ERROR_RULES = (
    " The code does not compute NME, so we follow the code of PDiscoFormer. Soft centroids and landmarks are divided "
    "by the size of the bounding box and z-scored on the training split. Each landmark is fitted by least squares "
    "without intercept on the images that show it. A part whose map stays at or below 0.5 counts as absent. The mean "
    "distance is taken over the visible landmarks of the test split. `--category 1` fits and reports on the birds of "
    "the first class alone, as PartFormer does for CUB-1, and 2 and 3 on those of CUB-2 and CUB-3."
)

CUB = PartProtocol(
    name="cub",
    load=load,
    truths=LANDMARKS,
    grid=128,
    error=_ERROR,
    of_category=of_category,
    source="MPAE, section 4 and its code (CUB); NME: PDiscoFormer's code",
    rules=(
        "The split is the official one. The whole image, without cropping to the box, is squashed to 448 x 448 "
        "(antialiased bilinear), and the landmarks with it. Each visible landmark takes the map values of the "
        "nearest cell on a 128 x 128 grid, and zeros on the far border. The strongest of all channels is compared "
        "with the number of the landmark. For FG-NMI and FG-ARI it is the strongest of the foreground channels."
        + _ERROR_RULES
    ),
    get=GET,
)

CUB_PARTFORMER = PartProtocol(
    name="cub-partformer",
    load=load_partformer,
    truths=LANDMARKS,
    grid=128,
    error=_ERROR,
    of_category=of_category,
    source="PartFormer, section 4.2 and its code (CUB-F); NME: PDiscoFormer's code",
    rules=(
        "This protocol is like cub, but the frame has 256 x 256 pixels. The image is squashed without antialiasing; "
        "image and landmarks are then enlarged by 256/255, as the warp of the code does. A landmark with a coordinate "
        "at or below 0 or above 256 counts as invisible. The paper states only that NME is relative to the bounding "
        "box." + _ERROR_RULES
    ),
    get=GET,
)
