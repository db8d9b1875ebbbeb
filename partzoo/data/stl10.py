"""The binary files of STL-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from partzoo.data.image_sets import ImageSet
from partzoo.data.reading import inside, need, read_text
from partzoo.errors import UsageError

SIDE = 96
GET = (
    "Download http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz and give the folder that stl10_binary/ was "
    "unpacked into (--data DIR)."
)


def load(data: str | Path, split: str, limit: int | None = None) -> ImageSet:
    """STL-10's binary files: ``"train"`` (5,000), ``"test"`` (8,000) and, without labels, ``"unlabeled"`` (100,000).

    Args:
        data: folder with ``stl10_binary``, or that folder.
        split: one of these.
        limit: only the first so many.

    Raises:
        UsageError: no such split, or its files are missing or damaged.
    """
    if split not in ("train", "test", "unlabeled"):
        raise UsageError(f"Unknown split {split!r} of stl-10; the splits are train, test, unlabeled.")
    data = inside(Path(data), "stl10_binary")
    labelled = split != "unlabeled"
    needed = [f"{split}_X.bin", "class_names.txt"] + [f"{split}_y.bin"] * labelled
    need("stl-10", data, needed, GET)
    row = 3 * SIDE * SIDE
    size = (data / f"{split}_X.bin").stat().st_size
    labels = torch.from_numpy(np.fromfile(data / f"{split}_y.bin", np.uint8).astype(np.int64) - 1) if labelled else None
    if not size or size % row or (labelled and len(labels) != size // row):
        raise UsageError(f"{data / f'{split}_X.bin'} does not hold {SIDE} x {SIDE} images, one a label. {GET}")
    count = size // row if limit is None else min(limit, size // row)
    stored = np.memmap(data / f"{split}_X.bin", np.uint8, "r", shape=(count, 3, SIDE, SIDE))
    # Planes are stored column by column.
    planes = torch.from_numpy(np.ascontiguousarray(stored.swapaxes(2, 3)))
    names = read_text(data / "class_names.txt").split()
    return ImageSet.from_pixels(planes, labels[:count] if labelled else None, names)
