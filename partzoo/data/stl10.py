"""Read the binary files of STL-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from partzoo.data.image_sets import ImageSet
from partzoo.data.reading import check_labels, inside, need, read_text
from partzoo.errors import UsageError
from partzoo.files import reading

SIDE = 96
GET = (
    "Download http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz and give the folder that stl10_binary/ was "
    "unpacked into (--data DIR)."
)


def load(data: str | Path, split: str, limit: int | None = None) -> ImageSet:
    """Read STL-10 from its binary files.

    Args:
        data: the folder ``stl10_binary``, or the folder that contains it.
        split: ``"train"`` (5,000 images), ``"test"`` (8,000) or ``"unlabeled"`` (100,000, without labels).
        limit: largest number of images; the first are taken.

    Raises:
        UsageError: the split is unknown, or its files are missing or damaged.
    """
    if split not in ("train", "test", "unlabeled"):
        raise UsageError(f"Unknown split {split!r} of stl-10; the splits are train, test, unlabeled.")
    data = inside(Path(data), "stl10_binary")
    labelled = split != "unlabeled"
    needed = [f"{split}_X.bin", "class_names.txt"] + [f"{split}_y.bin"] * labelled
    need("stl-10", data, needed, GET)
    row = 3 * SIDE * SIDE
    images, numbers = data / f"{split}_X.bin", data / f"{split}_y.bin"
    size = images.stat().st_size
    labels = None
    if labelled:
        with reading(numbers, UsageError):
            labels = torch.from_numpy(np.fromfile(numbers, np.uint8).astype(np.int64) - 1)
    if not size or size % row or (labels is not None and len(labels) != size // row):
        raise UsageError(f"{images} does not hold {SIDE} x {SIDE} images, one for each label. {GET}")
    count = size // row if limit is None else min(limit, size // row)
    with reading(images, UsageError):
        stored = np.memmap(images, np.uint8, "r", shape=(count, 3, SIDE, SIDE))
    # Each colour plane is stored column by column.
    planes = torch.from_numpy(np.ascontiguousarray(stored.swapaxes(2, 3)))
    names = read_text(data / "class_names.txt").split()
    if labels is not None:
        check_labels(numbers, labels.numpy(), names)
    return ImageSet.from_pixels(planes, None if labels is None else labels[:count], names)
