"""The images of a folder, of a tar or of sheets of equal tiles, as a set to train or to measure on."""

from __future__ import annotations

import json
import math
import tarfile
from os.path import commonpath
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from partzoo.data.image_sets import Frame, PictureSet, at_most, resized
from partzoo.data.official import official_pictures
from partzoo.errors import ImageError, UsageError
from partzoo.images.opening import SUFFIXES, open_pictures


def load_pictures(
    folder: str | Path, split: str = "train", *, side: int = 64, limit: int | None = None, frame: Frame = "crop"
) -> PictureSet:
    """The pictures of a folder, resized to a square.

    Five layouts are read: sheets of 64-pixel tiles (``train-00.avif``, ..., ``train-labels.npy``,
    ``classes.json``), of which any number may be present; one sheet of square tiles a split (``train.avif``,
    ``dev.avif``) with an ``.npz`` whose arrays have a row for each tile; the official files of CIFAR or STL-10
    (:mod:`partzoo.data.official`); one subfolder per class, with or without ``train`` and ``val`` above; any other
    tree of pictures, without labels. A tree without ``val`` has one picture in ten (every tenth, in the order of
    the names) as its ``val`` split. A ``.tar`` of pictures is read as the tree that it holds.

    Args:
        folder: where the pictures lie.
        split: ``"train"`` or ``"val"``.
        side: size in pixels.
        limit: at most so many pictures: the first of sheets, which are in random order; of a tree, spread evenly.
        frame: see :class:`PictureSet`.

    Raises:
        UsageError: the folder is missing or holds no pictures.
    """
    folder = Path(folder)
    sheet = folder / f"{'dev' if split == 'val' else split}.avif"
    if folder.suffix == ".tar" and folder.is_file():
        pictures = _from_tar(folder, split, side, frame)
    elif not folder.is_dir():
        raise UsageError(f"--data {folder} is not a folder.")
    elif (official := official_pictures(folder, split, limit)) is not None:
        pictures = official if official.side == side else official.resized(side)
    elif sheet.exists() and sheet.with_suffix(".npz").exists():
        pictures = _from_sheet(sheet, side)
    elif sheets := sorted(folder.glob(f"{split}-*.avif")):
        pictures = _from_sheets(folder, sheets, split, side)
    else:
        pictures = _from_tree(folder, split, side, frame)
    return pictures if limit is None else at_most(pictures, limit)


def _from_sheets(folder: Path, sheets: list[Path], split: str, side: int) -> PictureSet:
    pixels = torch.cat([_tiles(sheet, 64) for sheet in sheets])
    classes = [entry["words"] for entry in json.loads((folder / "classes.json").read_text())]
    labels = torch.from_numpy(np.load(folder / f"{split}-labels.npy").astype(np.int64))[: len(pixels)]
    return PictureSet.from_pixels(resized(pixels, side), labels, classes)


def _from_sheet(sheet: Path, side: int) -> PictureSet:
    """A sheet's tiles: the largest squares of which there are as many as its ``.npz`` has rows."""
    with np.load(sheet.with_suffix(".npz")) as arrays:
        count = len(arrays[arrays.files[0]])
    with Image.open(sheet) as picture:
        width, height = picture.size
    common = math.gcd(width, height)
    sides = (common // n for n in range(1, common + 1) if common % n == 0)
    tile = next((s for s in sides if (width // s) * (height // s) >= count), None)
    if tile is None:
        raise UsageError(f"{sheet} is too small for the {count} pictures that its .npz tells of.")
    return PictureSet.from_pixels(resized(_tiles(sheet, tile)[:count], side), None, [])


def _tiles(sheet: Path, tile: int) -> Tensor:
    """All tiles of a sheet, row by row: ``(n, 3, tile, tile)`` uint8."""
    pixels = torch.from_numpy(np.array(Image.open(sheet).convert("RGB")))
    tiles = pixels.unfold(0, tile, tile).unfold(1, tile, tile)
    return tiles.reshape(-1, 3, tile, tile).contiguous()


def picture_files(folder: str | Path) -> list[Path]:
    """The pictures in a folder and its subfolders, sorted.

    Raises:
        UsageError: the folder is missing or holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"--data {folder} is not a folder.")
    try:
        return list(open_pictures(folder)[0].sources)
    except ImageError as error:
        raise UsageError(f"--data {folder} holds no pictures: {error}") from error


def _from_tree(folder: Path, split: str, side: int, frame: Frame) -> PictureSet:
    root = folder / split if (folder / split).is_dir() else folder
    files = picture_files(root)
    if root == folder:
        files = _part(files, split)
    return PictureSet(files, side, *_classes([file.relative_to(root) for file in files]), frame)


def _from_tar(file: Path, split: str, side: int, frame: Frame) -> PictureSet:
    try:
        with tarfile.open(file) as tar:
            found = {each.name: each for each in tar if each.isfile() and each.name.lower().endswith(SUFFIXES)}
            names = _part(sorted(found), split)
            contents = [tar.extractfile(found[name]).read() for name in names]
    except (tarfile.TarError, OSError) as error:
        raise UsageError(f"--data {file} cannot be read: {error}.") from error
    if not names:
        raise UsageError(f"--data {file} holds no pictures.")
    root = commonpath([PurePath(name).parent for name in names])
    return PictureSet(contents, side, *_classes([PurePath(name).relative_to(root) for name in names]), frame)


def _part(files: list, split: str) -> list:
    """Of files that are in no folder of a split: every tenth is held out."""
    return files[::10] if split == "val" else [file for i, file in enumerate(files) if i % 10]


def _classes(files: list[PurePath]) -> tuple[Tensor | None, list[str]]:
    """Labels and their names: the folder, the first of a path, that each file lies in."""
    if any(len(file.parts) == 1 for file in files):
        return None, []
    classes = sorted({file.parts[0] for file in files})
    numbers = {name: number for number, name in enumerate(classes)}
    return torch.tensor([numbers[file.parts[0]] for file in files]), classes
