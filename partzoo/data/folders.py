"""Read image sets for training and evaluation from folders, tars, and sheets of square tiles."""

from __future__ import annotations

import math
from os.path import commonpath
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor

from partzoo.archives import check_zip
from partzoo.data.image_sets import Frame, ImageSet, at_most, resized
from partzoo.data.official import official_images
from partzoo.data.reading import check_labels, read_numbers
from partzoo.data.tars import tar_images
from partzoo.errors import ImageError, UsageError
from partzoo.files import expand_user, parse_json, reading
from partzoo.images.finding import relative
from partzoo.images.opening import open_image, open_images


def load_images(
    folder: str | Path, split: str = "train", *, side: int = 64, limit: int | None = None, frame: Frame = "crop"
) -> ImageSet:
    """Read the images of a folder, resized to squares.

    Five layouts are read: any number of sheets of 64-pixel tiles (``train-00.avif``, ...) with ``train-labels.npy`` and
    ``classes.json``; one sheet of square tiles for each split (``train.avif``, ``dev.avif``) with an ``.npz`` file
    whose arrays have a row for each tile; the official files of CIFAR or STL-10 (:mod:`partzoo.data.official`); one
    subfolder for each class, with or without ``train`` and ``val`` above; and any other tree of images, without labels.
    In a tree without ``val``, every tenth image, in the order of names, forms that split. A ``.tar`` file is read like
    the tree that it contains.

    Args:
        folder: folder or tar of the images.
        split: ``"train"`` or ``"val"``.
        side: side of the squares in pixels.
        limit: largest number of images: the first ones of sheets, whose order is random; evenly spaced ones of trees.
        frame: how images become squares; see :class:`ImageSet`.

    Raises:
        UsageError: the folder is missing or contains no images.
    """
    folder = expand_user(folder)
    sheet = folder / f"{'dev' if split == 'val' else split}.avif"
    if folder.suffix == ".tar" and folder.is_file():
        images = _from_tar(folder, split, side, frame)
    elif not folder.is_dir():
        raise UsageError(f"data={folder} is not a folder.")
    elif (official := official_images(folder, split, limit)) is not None:
        images = official if official.side == side else official.resized(side)
    elif sheet.exists() and sheet.with_suffix(".npz").exists():
        images = _from_sheet(sheet, side)
    elif sheets := sorted(folder.glob(f"{split}-*.avif")):
        images = _from_sheets(folder, sheets, split, side, limit)
    else:
        images = _from_tree(folder, split, side, frame)
    return images if limit is None else at_most(images, limit)


def _from_sheets(folder: Path, sheets: list[Path], split: str, side: int, limit: int | None) -> ImageSet:
    """Read sheets in order, until they have enough tiles."""
    read: list[Tensor] = []
    for sheet in sheets:
        if limit is None or sum(map(len, read)) < limit:
            read.append(resized(_tiles(open_image(sheet).pixels, 64), side))
    pixels = torch.cat(read)
    file = folder / "classes.json"
    with reading(file, UsageError, "is not a list of classes with 'words'"):
        classes = [str(entry["words"]) for entry in parse_json(file.read_bytes())]
    file = folder / f"{split}-labels.npy"
    labels = read_numbers(file)[: len(pixels)]
    check_labels(file, labels, classes)
    if len(labels) < len(pixels):
        raise UsageError(f"{file} has {len(labels)} labels for {len(pixels)} tiles. Download both again.")
    return ImageSet.from_pixels(pixels, torch.from_numpy(labels.astype(np.int64)), classes)


def _from_sheet(sheet: Path, side: int) -> ImageSet:
    """Read the tiles of a sheet: as many equal squares as its ``.npz`` file has rows, and as large as possible."""
    about = sheet.with_suffix(".npz")
    with reading(about, UsageError, "holds no readable array"):
        check_zip(about)
        with np.load(about, allow_pickle=False) as arrays:
            count = len(arrays[arrays.files[0]])
    pixels = open_image(sheet).pixels
    height, width = pixels.shape[:2]
    common = math.gcd(width, height)
    sides = (common // n for n in range(1, common + 1) if common % n == 0)
    tile = next((s for s in sides if (width // s) * (height // s) >= count), None)
    if tile is None:
        raise UsageError(f"{sheet} is too small for {count} tiles, the number of rows in its .npz file: recreate both.")
    return ImageSet.from_pixels(resized(_tiles(pixels, tile)[:count], side), None, [])


def _tiles(pixels: np.ndarray, tile: int) -> Tensor:
    """Cut a sheet ``(H, W, 3)`` uint8 into all its tiles, row by row: ``(n, 3, tile, tile)`` uint8."""
    tiles = torch.from_numpy(pixels).unfold(0, tile, tile).unfold(1, tile, tile)
    return tiles.reshape(-1, 3, tile, tile).contiguous()


def image_files(folder: str | Path) -> list[Path]:
    """Return the sorted paths of the images in a folder and its subfolders.

    Raises:
        UsageError: the folder is missing or contains no images.
    """
    folder = expand_user(folder)
    if not folder.is_dir():
        raise UsageError(f"data={folder} is not a folder.")
    try:
        return list(open_images(folder)[0].sources)
    except ImageError as error:
        raise UsageError(f"data={folder} holds no images: {error}") from error


def _from_tree(folder: Path, split: str, side: int, frame: Frame) -> ImageSet:
    root = folder / split if (folder / split).is_dir() else folder
    files = image_files(root)
    if root == folder:
        files = _part(files, split)
    return ImageSet(files, side, *_classes([relative(file, root) for file in files]), frame)


def _from_tar(file: Path, split: str, side: int, frame: Frame) -> ImageSet:
    images = tar_images(file, lambda names: _part(list(names), split))
    if not images:
        raise UsageError(f"data={file} holds no images.")
    root = commonpath([PurePath(name).parent for name in images])
    return ImageSet([*images.values()], side, *_classes([PurePath(name).relative_to(root) for name in images]), frame)


def _part(files: list, split: str) -> list:
    """Return one split of files that are not sorted into splits: every tenth file belongs to ``val``."""
    return files[::10] if split == "val" else [file for i, file in enumerate(files) if i % 10]


def _classes(files: list[PurePath]) -> tuple[Tensor | None, list[str]]:
    """Return labels and class names from the first folder in each file's path; none if a file is not in a folder."""
    if any(len(file.parts) == 1 for file in files):
        return None, []
    classes = sorted({file.parts[0] for file in files})
    numbers = {name: number for number, name in enumerate(classes)}
    return torch.tensor([numbers[file.parts[0]] for file in files]), classes
