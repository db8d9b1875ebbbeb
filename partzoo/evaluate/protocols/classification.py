"""Protocols that ask frozen features for the class of a picture: Tiny-ImageNet, CIFAR, STL-10."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from partzoo.data.cifar import CIFAR10_FILES, cifar100_files, inside
from partzoo.data.image_sets import PictureSet, load_pictures, picture_files
from partzoo.errors import UsageError
from partzoo.evaluate.protocols.base import need

# One linear layer, Adam at a constant 1e-3, no feature scaling, accuracy after the last epoch.
LINEAR_PROBE = {"epochs": 100, "batch_size": 128, "lr": 1e-3, "optimizer": "adam"}


@dataclass(frozen=True)
class ClassProtocol:
    """Classes of pictures, by features that were learned elsewhere.

    Attributes:
        name: as ``partzoo eval --protocol`` takes it.
        load: ``(folder, split, limit)`` -> pictures with labels; ``limit`` is None or at most so many, a fair sample.
        classes: how many there are.
        side: height and width of the data's own pictures; a model sees them resized to its own size and normalized
            its own way.
        source: paper and section, or page, that data and rules are from.
        rules: the same rules in a few sentences, for the docs.
        get: what to download, and how the folder must look.
        train, test: the splits that probes are fitted on and figures reported on.
        probe: settings of the papers' trained probe, for :func:`partzoo.evaluate.probes.linear.sgd_probe`.
    """

    name: str
    load: Callable[[Path, str, int | None], PictureSet]
    classes: int
    side: int
    source: str
    rules: str
    get: str
    train: str = "train"
    test: str = "test"
    probe: dict[str, Any] = field(default_factory=lambda: dict(LINEAR_PROBE))


_RULES = (
    "Features are the mean patch token of each {side} x {side} picture, resized to the model's size. Fitted on {train} "
    "and reported on {test}: 20 nearest neighbours by cosine, weighted; ridge regression of one-hot targets; one "
    "linear layer trained by Adam at 1e-3 for 100 epochs in batches of 128, without feature scaling, last epoch."
)
_SPATIAL = "Spatial Reasoning, 'Linear evaluation', with the settings of its published code"


def tiny_imagenet(data: str | Path, split: str, limit: int | None = None) -> PictureSet:
    """Tiny-ImageNet: the official folder, or sheets as :func:`partzoo.data.image_sets.load_pictures` reads them.

    The official validation pictures may lie together with ``val_annotations.txt`` or be sorted into a folder per
    class. A limit draws from all classes, by a fixed order; sheets are in random order already.

    Args:
        data: folder with ``train/<wnid>/images`` and ``val``, or with ``train-00.avif``, ...
        split: ``"train"`` or ``"val"``.
        limit: at most so many pictures.

    Raises:
        UsageError: no such split, or its files are missing.
    """
    if split not in ("train", "val"):
        raise UsageError(f"Unknown split {split!r} of tiny-imagenet; the splits with labels are train, val.")
    data = Path(data)
    if any(data.glob(f"{split}-*.avif")):
        return load_pictures(data, split, limit=limit)
    data = inside(data, "tiny-imagenet-200")
    need("tiny-imagenet", data, ["train", split], TINY_IMAGENET.get)
    classes = sorted(folder.name for folder in (data / "train").iterdir() if folder.is_dir())
    annotations = data / "val" / "val_annotations.txt"
    if split == "val" and annotations.exists() and (data / "val/images").is_dir():
        rows = [line.split("\t")[:2] for line in annotations.read_text().splitlines() if line]
        files, names = [data / "val/images" / file for file, _ in rows], [name for _, name in rows]
    else:
        files, names = picture_files(data / split), []
    # A folder per class: train/<wnid>/images/x.JPEG, val/<wnid>/x.JPEG or val/images/<wnid>/x.JPEG.
    known = {name: number for number, name in enumerate(classes)}
    names = names or [next((part for part in file.parts[::-1] if part in known), file.parent.name) for file in files]
    if strange := set(names) - set(known):
        raise UsageError(f"{data / split} has the class {min(strange)!r}, which {data / 'train'} has not.")
    labels = torch.tensor([known[name] for name in names])
    if limit is not None and limit < len(files):
        chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))[:limit]
        files, labels = [files[i] for i in chosen], labels[chosen]
    return PictureSet(files, TINY_IMAGENET.side, labels, classes)


def stl10(data: str | Path, split: str, limit: int | None = None) -> PictureSet:
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
    need("stl-10", data, needed, STL10.get)
    side = STL10.side
    row = 3 * side * side
    size = (data / f"{split}_X.bin").stat().st_size
    labels = torch.from_numpy(np.fromfile(data / f"{split}_y.bin", np.uint8).astype(np.int64) - 1) if labelled else None
    if not size or size % row or (labelled and len(labels) != size // row):
        raise UsageError(f"{data / f'{split}_X.bin'} does not hold {side} x {side} pictures, one a label. {STL10.get}")
    count = size // row if limit is None else min(limit, size // row)
    stored = np.memmap(data / f"{split}_X.bin", np.uint8, "r", shape=(count, 3, side, side))
    # Planes are stored column by column.
    planes = torch.from_numpy(np.ascontiguousarray(stored.swapaxes(2, 3)))
    names = (data / "class_names.txt").read_text().split()
    return PictureSet.from_pixels(planes, labels[:count] if labelled else None, names)


TINY_IMAGENET = ClassProtocol(
    name="tiny-imagenet",
    load=tiny_imagenet,
    classes=200,
    side=64,
    test="val",
    source=_SPATIAL + "; data: Stanford CS231n's Tiny ImageNet challenge",
    rules=_RULES.format(side=64, train="train (100,000 pictures)", test="val (10,000)"),
    get=(
        "Download http://cs231n.stanford.edu/tiny-imagenet-200.zip and give the folder that it was unpacked into, with "
        "train/<wnid>/images and val/images + val/val_annotations.txt; or a folder of 64-pixel sheets train-00.avif, "
        "..., val-00.avif, ... with train-labels.npy, val-labels.npy and classes.json (--data DIR)."
    ),
)


def _cifar(name: str, classes: int, files: Any) -> ClassProtocol:
    return ClassProtocol(
        name=name,
        load=files.load,
        classes=classes,
        side=32,
        source=_SPATIAL + "; data: Krizhevsky, 'Learning multiple layers of features from tiny images', 2009",
        rules=_RULES.format(side=32, train="train (50,000 pictures)", test="test (10,000)"),
        get=files.get,
    )


CIFAR10 = _cifar("cifar-10", 10, CIFAR10_FILES)
CIFAR100 = _cifar("cifar-100", 100, cifar100_files("cifar-100", "fine"))
CIFAR100_20 = _cifar("cifar-100-20", 20, cifar100_files("cifar-100-20", "coarse"))

STL10 = ClassProtocol(
    name="stl-10",
    load=stl10,
    classes=10,
    side=96,
    source=_SPATIAL + "; data: Coates et al., 'An analysis of single-layer networks', AISTATS 2011",
    rules=_RULES.format(side=96, train="train (5,000 pictures)", test="test (8,000)"),
    get=(
        "Download http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz and give the folder that stl10_binary/ was "
        "unpacked into (--data DIR)."
    ),
)
