"""Read the images named in a recipe's ``[data]``: a user's folder, or a data set in its official layout.

The layouts are those that ``partzoo eval --protocol`` reads, but only the image's class is used of their annotations.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch

from partzoo.data import tiny_imagenet
from partzoo.data.folders import load_images
from partzoo.data.image_sets import Frame, ImageSet, at_most
from partzoo.data.masks import MaskedSet, find_set
from partzoo.data.tars import TarImage
from partzoo.errors import UsageError
from partzoo.evaluate.probes.held_out import labels_of
from partzoo.evaluate.protocols import aflw, celeba, cub, deepfashion, partimagenet
from partzoo.train.recipe import DataRecord

Layout = Literal[
    "folder", "aflw", "cars", "celeba", "celebamask", "clothing", "cub", "deepfashion", "partimagenet-ood",
    "partimagenet-partformer", "partimagenet-seg",
]  # fmt: skip


@dataclass(frozen=True)
class DataOptions(DataRecord):
    """Options for reading training images, and what a release's record states about the data.

    Attributes:
        layout: ``"folder"``, read by :func:`partzoo.data.folders.load_images`, or the name of a data set's official
            layout, of which the training split is read.
        frame: way in which an image becomes a square, see :class:`partzoo.data.image_sets.ImageSet`.
        categories: classes to use, numbered in this order; empty means all.
        exclude: classes to leave out.
        limit: use at most this many images.
        per_class: use at most this many images from each class, drawn with the run's random seed; None means all.
    """

    layout: Layout = "folder"
    frame: Frame = "crop"
    categories: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    per_class: int | None = None


class Listed(NamedTuple):
    """An image in a data set: its file or its content, with the number and name of its class if it has one."""

    file: Path | TarImage
    number: int | None = None
    category: str = ""


def read_images(
    folder: str | Path, options: DataOptions, side: int, *, split: Literal["train", "val"] = "train", seed: int = 0
) -> ImageSet:
    """Read the images to train on, or the held-out images, resized to ``side`` x ``side`` pixels.

    Args:
        folder: folder of the data.
        options: options for reading; ``limit`` and ``per_class`` apply to training images alone.
        side: height and width in pixels.
        split: training or held-out images; only the layout ``"folder"`` has held-out images.
        seed: random seed for ``per_class``.

    Raises:
        UsageError: the folder is not in this layout, or lacks a class or labels that the options need.
    """
    training = split == "train"
    some = bool(options.categories or options.exclude)
    limit = options.limit if training else None
    if options.layout == "folder":
        images = _folder(Path(folder), split, side, None if some else limit, options.frame)
    elif training:
        images = _listed(LAYOUTS[options.layout](folder), side, options.frame)
    else:
        raise UsageError(
            f"data.layout={options.layout!r} has no held-out images. Use 'folder', the only layout that has them."
        )
    if options.categories or options.exclude:
        images = of_categories(images, options, folder)
    if limit is not None:
        images = at_most(images, limit)
    if options.per_class is not None and training:
        if images.labels is None:
            raise UsageError(f"data={folder} has no classes. Leave out data.per_class.")
        if options.per_class < 1:
            raise UsageError(f"data.per_class={options.per_class} must be at least 1.")
        images = of_each_class(images, options.per_class, seed)
    return images


def _folder(folder: Path, split: str, side: int, limit: int | None, frame: Frame) -> ImageSet:
    if split == "val" and (folder / "val" / "val_annotations.txt").is_file():
        images = tiny_imagenet.load(folder, split, limit)
        return ImageSet(images.files, side, images.labels, images.classes, frame)
    return load_images(folder, split, side=side, limit=limit, frame=frame)


def of_each_class(images: ImageSet, count: int, seed: int) -> ImageSet:
    """Select at most ``count`` images of each class, in the set's order."""
    labels = labels_of(images)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    chosen = [order[labels[order] == number][:count] for number in range(len(images.classes))]
    return images.select(torch.cat(chosen).sort().values)


def _listed(rows: Sequence[Listed], side: int, frame: Frame) -> ImageSet:
    files = [row.file for row in rows]
    if rows[0].number is None:
        return ImageSet(files, side, None, [], frame)
    names = {row.number: row.category for row in rows if row.number is not None}
    classes = [names.get(number, "") for number in range(max(names) + 1)]
    return ImageSet(files, side, torch.tensor([row.number for row in rows]), classes, frame)


def of_categories(images: ImageSet, options: DataOptions, folder: str | Path) -> ImageSet:
    """Select the images of the classes that the options choose, and renumber these classes.

    Raises:
        UsageError: the images, which were read from ``folder``, have no classes, or lack a chosen class.
    """
    if images.labels is None:
        raise UsageError(f"data={folder} has no classes. Leave out data.categories and data.exclude.")
    for name in options.categories:
        if name not in images.classes:
            close = difflib.get_close_matches(name, images.classes, n=1, cutoff=0)
            raise UsageError(f"data={folder} has no class {name!r}. The closest is {close[0]!r}.")
    kept = [name for name in options.categories or images.classes if name and name not in options.exclude]
    numbers = torch.full((len(images.classes),), -1)
    for number, name in enumerate(kept):
        numbers[images.classes.index(name)] = number
    chosen = images.select((numbers[images.labels] >= 0).nonzero().flatten())
    chosen.labels, chosen.classes = numbers[chosen.labels], kept
    return chosen


def _aflw(folder: str | Path) -> list[Listed]:
    return [Listed(file) for file, _ in aflw.load(folder, "train").records]


def _celeba(folder: str | Path) -> list[Listed]:
    return [Listed(file) for file, _ in celeba.load(folder, "train").records]


def _cub(folder: str | Path) -> list[Listed]:
    return [Listed(bird.file, bird.category, bird.file.parent.name) for bird in cub.load(folder, "train").records]


def _deepfashion(folder: str | Path) -> list[Listed]:
    return [Listed(file) for file in deepfashion.load(folder, "train").records]


def _partformers_partimagenet(folder: str | Path) -> list[Listed]:
    images = partimagenet.load_partformer(folder, "train").records
    return [Listed(each.file, each.category, each.file.parent.name) for each in images]


def _partimagenet(load: Callable) -> Callable[[str | Path], list[Listed]]:
    """Return the reader of one of PartImageNet's two layouts, whose image names state the class before the number."""

    def read(folder: str | Path) -> list[Listed]:
        images = load(folder, "train").records
        return [Listed(each.file, each.category, each.file.name.partition("_")[0]) for each in images]

    return read


def _masked(name: str) -> Callable[[str | Path], list[Listed]]:
    """Return the reader of a set with label maps (:mod:`partzoo.evaluate.protocols.masks`), whose labels are unused."""

    def read(folder: str | Path) -> list[Listed]:
        images = MaskedSet(find_set(folder, name), "train")
        return [Listed(images.source(index)) for index in range(len(images))]

    return read


LAYOUTS: dict[str, Callable[[str | Path], list[Listed]]] = {
    "aflw": _aflw,
    "cars": _masked("cars"),
    "celeba": _celeba,
    "celebamask": _masked("celebamask"),
    "clothing": _masked("clothing"),
    "cub": _cub,
    "deepfashion": _deepfashion,
    "partimagenet-ood": _partimagenet(partimagenet.load_ood),
    "partimagenet-partformer": _partformers_partimagenet,
    "partimagenet-seg": _partimagenet(partimagenet.load_seg),
}
assert set(get_args(Layout)) == {"folder", *LAYOUTS}
