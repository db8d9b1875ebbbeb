"""The pictures that a recipe's ``[data]`` names: anybody's folder, or a data set in its official layout.

The layouts are those that ``partzoo eval --protocol`` reads; of their annotations only a picture's class is used.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch

from partzoo.errors import UsageError
from partzoo.evaluate.protocols import aflw, celeba, cub, deepfashion, partimagenet
from partzoo.train.data import Frame, PictureSet, at_most, load_pictures

Layout = Literal[
    "folder", "aflw", "celeba", "cub", "deepfashion", "partimagenet-ood", "partimagenet-partformer", "partimagenet-seg"
]


@dataclass(frozen=True)
class DataOptions:
    """How training pictures are read, and what a release's record says of them.

    Attributes:
        layout: ``"folder"``, as :func:`partzoo.train.data.load_pictures` reads one, or a data set's official layout, of
            which the training split is read.
        frame: how a picture becomes a square, see :class:`partzoo.train.data.PictureSet`.
        categories: only pictures of these classes, numbered in this order; empty is all.
        exclude: classes to leave out.
        limit: at most so many pictures.
        name, terms, labels_used: for the record of a released weight.
    """

    layout: Layout = "folder"
    frame: Frame = "crop"
    categories: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    name: str = ""
    terms: str = ""
    labels_used: bool = False


class Listed(NamedTuple):
    """A picture of a data set: its file, and its class's number and name where there is one."""

    file: Path
    number: int | None = None
    category: str = ""


def read_pictures(folder: str | Path, options: DataOptions, side: int) -> PictureSet:
    """The pictures to train on, ``side`` pixels high and wide.

    Raises:
        UsageError: the folder is not in this layout, or lacks a class that is asked for.
    """
    some = bool(options.categories or options.exclude)
    if options.layout == "folder":
        pictures = load_pictures(folder, side=side, limit=None if some else options.limit, frame=options.frame)
    else:
        pictures = _listed(LAYOUTS[options.layout](folder), side, options.frame)
    if some:
        pictures = _of_categories(pictures, options, folder)
    return pictures if options.limit is None else at_most(pictures, options.limit)


def _listed(rows: Sequence[Listed], side: int, frame: Frame) -> PictureSet:
    files = [row.file for row in rows]
    if rows[0].number is None:
        return PictureSet(files, side, None, [], frame)
    names = {row.number: row.category for row in rows}
    classes = [names.get(number, "") for number in range(max(names) + 1)]
    return PictureSet(files, side, torch.tensor([row.number for row in rows]), classes, frame)


def _of_categories(pictures: PictureSet, options: DataOptions, folder: str | Path) -> PictureSet:
    if pictures.labels is None:
        raise UsageError(f"--data {folder} has no classes: leave out data.categories and data.exclude.")
    for name in options.categories:
        if name not in pictures.classes:
            close = difflib.get_close_matches(name, pictures.classes, n=1, cutoff=0)
            raise UsageError(f"--data {folder} has no class {name!r}; the closest it has is {close[0]!r}.")
    kept = [name for name in options.categories or pictures.classes if name and name not in options.exclude]
    numbers = torch.full((len(pictures.classes),), -1)
    for number, name in enumerate(kept):
        numbers[pictures.classes.index(name)] = number
    chosen = pictures.select((numbers[pictures.labels] >= 0).nonzero().flatten())
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
    pictures = partimagenet.load_partformer(folder, "train").records
    return [Listed(each.file, each.category, each.file.parent.name) for each in pictures]


def _partimagenet(load: Callable) -> Callable[[str | Path], list[Listed]]:
    """PartImageNet's own two layouts, where the class stands before the number in a picture's name."""

    def read(folder: str | Path) -> list[Listed]:
        files = [each.file for each in load(folder, "train").records]
        names = [file.name.partition("_")[0] for file in files]
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        return [Listed(file, numbers[name], name) for file, name in zip(files, names, strict=True)]

    return read


LAYOUTS: dict[str, Callable[[str | Path], list[Listed]]] = {
    "aflw": _aflw,
    "celeba": _celeba,
    "cub": _cub,
    "deepfashion": _deepfashion,
    "partimagenet-ood": _partimagenet(partimagenet.load_ood),
    "partimagenet-partformer": _partformers_partimagenet,
    "partimagenet-seg": _partimagenet(partimagenet.load_seg),
}
assert set(get_args(Layout)) == {"folder", *LAYOUTS}
