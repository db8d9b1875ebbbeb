"""Read the official CIFAR-10, CIFAR-100 and STL-10 files as training images.

The same readers serve the protocols that measure on these data (:mod:`partzoo.evaluate.protocols`).
"""

from __future__ import annotations

from pathlib import Path

from partzoo.data import stl10
from partzoo.data.cifar import CIFAR10_FILES, cifar100_files
from partzoo.data.image_sets import ImageSet
from partzoo.data.reading import inside
from partzoo.errors import UsageError


def official_images(folder: Path, split: str, limit: int | None = None) -> ImageSet | None:
    """Read the images of CIFAR or STL-10 at their original size.

    Args:
        folder: folder of an unpacked official archive (``cifar-10-batches-py``, ``cifar-100-python``, their binary
            versions, or ``stl10_binary``), or the folder that contains it.
        split: ``"train"``, or ``"val"`` for their test split. For STL-10, ``"train"`` is the unlabelled images if they
            are present.
        limit: largest number of images.

    Returns:
        The images, for CIFAR-100 with fine labels; None if the folder contains none of these data sets.

    Raises:
        UsageError: the folder contains several of them, or files are missing or damaged.
    """
    found = []
    for cifar in (CIFAR10_FILES, cifar100_files("cifar-100", "fine")):
        python, binary = (inside(folder, name) for name in (cifar.python, cifar.binary))
        if (python / cifar.names[0]).is_file() or (binary / cifar.names[2]).is_file():
            found.append((cifar.name, cifar.load, "train"))
    stl = inside(folder, "stl10_binary")
    if (stl / "class_names.txt").is_file() and any(stl.glob("*_X.bin")):
        unlabelled = (stl / "unlabeled_X.bin").is_file()
        found.append(("stl-10", stl10.load, "unlabeled" if unlabelled else "train"))
    if len(found) > 1:
        names = ", ".join(name for name, *_ in found)
        raise UsageError(f"data={folder} holds {names}: give the folder of one of them.")
    if not found:
        return None
    _, load, train = found[0]
    return load(folder, "test" if split == "val" else train, limit)
