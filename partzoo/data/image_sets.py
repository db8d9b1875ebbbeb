"""Pictures to train on, as uint8 in memory: a folder of pictures, a tar of them, or sheets of equal tiles."""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os.path import commonpath
from pathlib import Path, PurePath
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from partzoo.data.official import official_pictures
from partzoo.data.reading import squash_plain
from partzoo.errors import ImageError, UsageError
from partzoo.images.opening import SUFFIXES, open_picture, open_pictures

CACHE_BYTES = 4 << 30
Frame = Literal["crop", "squash"]


class Examples:
    """What one trains on, by number."""

    labels: Tensor | None
    classes: list[str]

    def __len__(self) -> int:
        raise NotImplementedError

    def batch(self, indices: Tensor) -> Tensor:
        """The examples with these numbers, ``(B, ...)``."""
        raise NotImplementedError

    def epochs(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
        """Batches of numbers without end: a new order every epoch, drawn from the seed.

        Args:
            batch_size: numbers in each batch; a batch may span two epochs.
            seed: of the orders.
            start: examples to leave out at the beginning (those seen before a resume).
        """
        count, position = len(self), start
        while True:
            numbers = [
                torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch))
                for epoch in range(position // count, (position + batch_size - 1) // count + 1)
            ]
            offset = position % count
            yield torch.cat(numbers)[offset : offset + batch_size]
            position += batch_size


class PictureSet(Examples):
    """Square pictures of one size, with labels where the data has them.

    Pictures are decoded when first asked for and kept as uint8, as long as all of them fit into
    ``CACHE_BYTES``; larger sets are decoded each time.

    Attributes:
        files: where they are, or their encoded bytes; empty for those that were in memory from the first.
        side: height and width in pixels.
        labels: ``(N,)`` int64, or None.
        classes: the labels' names.
        frame: how a picture becomes a square: ``"crop"``, the centre of it, its shorter side resized; ``"squash"``, all
            of it, aspect not kept.
    """

    def __init__(
        self,
        files: Sequence[Path | bytes],
        side: int,
        labels: Tensor | None,
        classes: list[str],
        frame: Frame = "crop",
    ) -> None:
        if frame not in get_args(Frame):
            raise UsageError(f"frame={frame!r}: it is 'crop' or 'squash'.")
        self.files, self.side, self.labels, self.classes, self.frame = files, side, labels, classes, frame
        fits = len(files) * 3 * side * side <= CACHE_BYTES
        self._pixels = torch.empty((len(files) if fits else 0, 3, side, side), dtype=torch.uint8)
        self._known = torch.zeros(len(files), dtype=torch.bool)

    @classmethod
    def from_pixels(cls, pixels: Tensor, labels: Tensor | None, classes: list[str]) -> PictureSet:
        """Pictures ``(N, 3, side, side)`` uint8 that are in memory already."""
        self = cls([], pixels.shape[-1], labels, classes)
        self._pixels, self._known = pixels, torch.ones(len(pixels), dtype=torch.bool)
        return self

    def __len__(self) -> int:
        return len(self._known)

    def batch(self, indices: Tensor) -> Tensor:
        """The pictures with these numbers, ``(B, 3, side, side)`` uint8.

        Raises:
            ImageError: a file cannot be read.
        """
        missing = indices[~self._known[indices]].tolist()
        if not missing:
            return self._pixels[indices]
        with ThreadPoolExecutor() as pool:
            decoded = torch.stack(list(pool.map(self._decode, missing)))
        if len(self._pixels) == 0:
            return decoded
        self._pixels[missing] = decoded
        self._known[missing] = True
        return self._pixels[indices]

    def _decode(self, index: int) -> Tensor:
        file = self.files[index]
        try:
            pixels = open_picture(file).pixels
        except ImageError as error:
            name = f"picture {index + 1} of {len(self)}" if isinstance(file, bytes) else file
            raise ImageError(f"{name} cannot be read as a picture: {error}") from error
        if self.frame == "squash":
            pixels = squash_plain(pixels, self.side)
        else:
            image = ImageOps.fit(Image.fromarray(pixels), (self.side, self.side), Image.Resampling.BICUBIC)
            pixels = np.array(image)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def resized(self, side: int) -> PictureSet:
        """All pictures in another size, in memory."""
        pixels = _resized(self.batch(torch.arange(len(self))), side)
        return PictureSet.from_pixels(pixels, self.labels, self.classes)

    def select(self, indices: Tensor) -> PictureSet:
        """The pictures with these numbers, in this order, as a set of their own."""
        labels = None if self.labels is None else self.labels[indices]
        if not self.files:
            return PictureSet.from_pixels(self._pixels[indices], labels, self.classes)
        files = [self.files[index] for index in indices.tolist()]
        return PictureSet(files, self.side, labels, self.classes, self.frame)


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


def at_most(pictures: PictureSet, count: int) -> PictureSet:
    """``count`` pictures or, where there are fewer, all: of files, spread evenly; of pixels in memory, the first."""
    if count >= len(pictures):
        return pictures
    numbers = torch.arange(count)
    return pictures.select(numbers * len(pictures) // count if pictures.files else numbers)


def _from_sheets(folder: Path, sheets: list[Path], split: str, side: int) -> PictureSet:
    pixels = torch.cat([_tiles(sheet, 64) for sheet in sheets])
    classes = [entry["words"] for entry in json.loads((folder / "classes.json").read_text())]
    labels = torch.from_numpy(np.load(folder / f"{split}-labels.npy").astype(np.int64))[: len(pixels)]
    return PictureSet.from_pixels(_resized(pixels, side), labels, classes)


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
    return PictureSet.from_pixels(_resized(_tiles(sheet, tile)[:count], side), None, [])


def _tiles(sheet: Path, tile: int) -> Tensor:
    """All tiles of a sheet, row by row: ``(n, 3, tile, tile)`` uint8."""
    pixels = torch.from_numpy(np.array(Image.open(sheet).convert("RGB")))
    tiles = pixels.unfold(0, tile, tile).unfold(1, tile, tile)
    return tiles.reshape(-1, 3, tile, tile).contiguous()


def _resized(pixels: Tensor, side: int) -> Tensor:
    if pixels.shape[-1] == side:
        return pixels
    resize = torch.nn.functional.interpolate
    return torch.cat(
        [
            resize(chunk.float(), side, mode="bicubic", antialias=True).round().clamp(0, 255).byte()
            for chunk in pixels.split(1000)
        ]
    )


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
