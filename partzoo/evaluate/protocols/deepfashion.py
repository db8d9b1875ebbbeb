"""``deepfashion``: a protocol on images of people with parsing masks (In-shop Clothes Retrieval Benchmark)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from partzoo.data.annotations import turn_to_image
from partzoo.data.reading import (
    Example,
    Examples,
    check_any,
    check_split,
    need,
    read_json,
    squash_mask,
    squash_plain,
)
from partzoo.errors import UsageError
from partzoo.evaluate.protocols.base import PartProtocol
from partzoo.files import reading
from partzoo.images.opening import open_image

LISTS = {"train": ("train",), "test": ("query", "gallery")}
GRID = 128
# Red, green and blue of each label in the parsing masks, from the data's README.
COLOURS = {
    "background": (0, 0, 0),
    "top": (255, 250, 250),
    "skirt": (250, 235, 215),
    "leggings": (70, 130, 180),
    "dress": (16, 78, 139),
    "outer": (255, 250, 205),
    "pants": (255, 140, 0),
    "bag": (50, 205, 50),
    "neckwear": (220, 220, 220),
    "headwear": (255, 0, 0),
    "eyeglass": (127, 255, 212),
    "belt": (0, 100, 0),
    "footwear": (255, 255, 0),
    "hair": (211, 211, 211),
    "skin": (144, 238, 144),
    "face": (245, 222, 179),
}
GET = (
    "Ask for the In-shop Clothes Retrieval Benchmark at https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/"
    "InShopRetrieval.html and give its folder: Anno/segmentation/ with DeepFashion_segmentation_train.json, _query "
    "and _gallery, and img_highres_seg.zip unpacked there, so that images and their NAME_segment.png lie in "
    "Anno/segmentation/img_highres/ (--data DIR)."
)


def load(data: str | Path, split: str, side: int = 256) -> Examples:
    """Read people squashed to ``side`` x ``side`` pixels, masks to 128 x 128; ``split`` is train or test.

    Raises:
        UsageError: the split is unknown, or the data is missing or damaged.
    """
    check_split("deepfashion", split, tuple(LISTS))
    lists = [f"Anno/segmentation/DeepFashion_segmentation_{name}.json" for name in LISTS[split]]
    data = need("deepfashion", data, (*lists, "Anno/segmentation/img_highres"), GET)
    images = []
    for name in lists:
        with reading(data / name, UsageError, "does not list 'images', each with a 'file_name'"):
            images += [data / "Anno/segmentation" / each["file_name"] for each in read_json(data / name)["images"]]
        check_any(data / name, images, "images")
    return Examples(images, partial(_example, side=side), str)


def _example(file: Path, side: int) -> Example:
    pixels, segments = open_image(file).pixels, file.with_name(f"{file.stem}_segment.png")
    mask = _labels(segments)
    turn = turn_to_image(file, pixels.shape[:2], mask.shape, str(file), f"{segments.name} is")
    return Example(squash_plain(pixels, side), mask=squash_mask(turn(mask), GRID))


def _labels(file: Path) -> np.ndarray:
    """Read the labels ``(H, W)`` of a parsing mask, numbered as in ``COLOURS``."""
    codes = open_image(file).pixels.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    known = np.array(list(COLOURS.values())) @ (1 << 16, 1 << 8, 1)
    order = known.argsort()
    found = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
    if (known[found] != codes).any():
        colour = codes[known[found] != codes][0]
        raise UsageError(f"{file} has the colour #{colour:06x}, which is not a part's. Download the file again.")
    return found


DEEPFASHION = PartProtocol(
    name="deepfashion",
    load=load,
    truths=len(COLOURS),
    grid=GRID,
    background=0,
    source="PartFormer, sections 4.1 and 4.2 (no code for DeepFashion)",
    rules=(
        "Models are fitted on the training list and reported on the query and gallery lists. NMI and ARI compare all "
        "pixels with the 15 classes and the background of the parsing masks. FG-NMI and FG-ARI are taken over the "
        "pixels of the 15 classes, each of which takes its strongest foreground channel. The paper gives no more "
        "rules. The others are ours and follow those of its other data sets: the whole image is squashed to 256 x 256 "
        "without antialiasing, and masks are resized to 128 x 128 (nearest), the grid on which maps are read."
    ),
    get=GET,
)
