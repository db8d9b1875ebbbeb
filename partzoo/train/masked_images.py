"""Training data for a foreground model: images with masks, and images whose masks a teacher model predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from partzoo.data.image_sets import Examples
from partzoo.data.masks import SPLITS, MaskedSet, find_set, hashes_of, is_known
from partzoo.data.tars import TarImage, source_name, tar_images
from partzoo.errors import ImageError, UsageError
from partzoo.images.opening import open_image, open_images
from partzoo.skipping import warn_of
from partzoo.train.recipe import DataRecord
from partzoo.train.teachers import Teacher, teacher_of

AREA = (0.02, 0.85)  # smallest and largest share of an image that a teacher's mask may cover


@dataclass(frozen=True)
class MaskedOptions(DataRecord):
    """The data that a foreground model is trained on.

    Attributes:
        sets: names of sets with masks (:class:`partzoo.data.masks.MaskedSet`); their training splits are used.
        shares: relative frequency of each set in the batches; by default all are equal.
        unlabelled: tars or folders of images without masks, inside the data folder.
        every: for each of ``unlabelled``, a step n: every n-th image is used.
        teacher: model that predicts masks for ``unlabelled``, see :func:`partzoo.train.teachers.teacher_of`.
        sure: lowest confidence at which a teacher's mask is used.
        teacher_share: share of a batch that comes from ``unlabelled``; 1 if there are no sets.
        report_only: sets that may not be trained on at all. Images that nearly equal one of theirs, or one
            of another split of ``sets`` or of ``evaluated``, are left out.
        evaluated: sets of which only the training split may be trained on.
        exclude: names of unlabelled images to leave out, such as those on which results are judged.
    """

    sets: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    unlabelled: tuple[str, ...] = ()
    every: tuple[int, ...] = ()
    teacher: str = ""
    sure: float = 0.65
    teacher_share: float = 0.4
    report_only: tuple[str, ...] = ()
    evaluated: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class MaskedImages(Examples):
    """Images and masks in memory, squashed to squares.

    Attributes:
        labels: ``(N,)``, index of each example, with which a task looks up its ``aspects`` and ``taught``.
        aspects: ``(N,)`` float32, width divided by height of each image before it became a square.
        taught: ``(N,)`` bool, whether a teacher predicted the mask.
    """

    def __init__(self, pixels: Tensor, aspects: Tensor, taught: Tensor, weights: Tensor) -> None:
        self._pixels, self.aspects, self.taught = pixels, aspects, taught
        self._weights = weights
        self.labels = torch.arange(len(pixels))
        self.classes = []

    def __len__(self) -> int:
        return len(self._pixels)

    def batch(self, indices: Tensor) -> Tensor:
        """Return red, green, blue and the mask, ``(B, 4, S, S)`` uint8, 0 to 255."""
        return self._pixels[indices]

    def move(self, device: torch.device) -> None:
        self._pixels = self._pixels.to(device)

    def epochs(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
        """Yield batches drawn with replacement in the sets' shares; they depend only on seed and position."""
        while True:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
            yield torch.multinomial(self._weights, batch_size, replacement=True, generator=generator)
            start += batch_size


def read_masked(folder: str | Path, options: MaskedOptions, side: int, *, progress: bool = True) -> MaskedImages:
    """Read the images that the options name.

    Args:
        folder: folder of the sets.
        options: sets to use, and images to leave out.
        side: side of the squares in pixels.
        progress: whether to show a bar while the teacher predicts masks.

    Images that are damaged, or whose masks are, are skipped and named in warnings.

    Raises:
        UsageError: a set, a share or the teacher is missing, or no image is left.
    """
    shares = options.shares or (1.0,) * len(options.sets)
    if len(shares) != len(options.sets):
        raise UsageError(f"data.shares has {len(shares)} numbers for {len(options.sets)} sets. Give one for each.")
    if bool(options.unlabelled) != bool(options.teacher):
        raise UsageError("data.unlabelled and data.teacher go together. Give both, or neither.")
    known = _known(folder, options)
    squares, aspects, weights = [], [], []

    def keep(pixels: np.ndarray, mask: np.ndarray) -> None:
        squares.append(_square(pixels, mask, side))
        aspects.append(pixels.shape[1] / pixels.shape[0])

    for name, share in zip(options.sets, shares, strict=True):
        before = len(squares)
        for example in MaskedSet(find_set(folder, name), "train").usable():
            if not is_known(example.pixels, known):
                keep(example.pixels, (example.mask > 0) * np.uint8(255))
        weights += [share / max(len(squares) - before, 1)] * (len(squares) - before)
    labelled = len(squares)
    if options.unlabelled:
        for pixels, mask in _taught(folder, options, known, teacher_of(options.teacher), progress):
            keep(pixels, mask)
    count = len(squares) - labelled
    share = options.teacher_share if labelled else 1.0
    scale = (1 - share * bool(count)) / (sum(weights) or 1)
    weights = [weight * scale for weight in weights] + [share / max(count, 1)] * count
    if not squares:
        raise UsageError(
            f"data={folder}: no image is left to train on. Name more sets, or fewer that may not be trained on."
        )
    taught = torch.arange(len(squares)) >= labelled
    return MaskedImages(torch.stack(squares), torch.tensor(aspects, dtype=torch.float32), taught, torch.tensor(weights))


def _known(folder: str | Path, options: MaskedOptions) -> np.ndarray:
    """Compute the hashes of all images that must not be trained on."""
    held = [(name, "all") for name in options.report_only]
    held += [(name, split) for name in (*options.sets, *options.evaluated) for split in SPLITS if split != "train"]
    images = (example.pixels for name, split in held for example in MaskedSet(find_set(folder, name), split).usable())
    return hashes_of(images)


def _taught(
    folder: str | Path, options: MaskedOptions, known: np.ndarray, teacher: Teacher, progress: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield unlabelled images, and masks ``(H, W)`` uint8 in 0..255, for which the teacher is sure enough."""
    steps = options.every or (1,) * len(options.unlabelled)
    sources = [
        source
        for name, step in zip(options.unlabelled, steps, strict=True)
        for source in _sources(Path(folder, name), options.exclude, step)
    ]
    for source in tqdm(sources, desc=f"masks by {options.teacher}", disable=not progress):
        name = source_name(source)
        try:
            pixels = open_image(source, name=name).pixels
        except ImageError as error:
            warn_of(name, error)
            continue
        if is_known(pixels, known):
            continue
        mask, sure = teacher(pixels)
        if AREA[0] < mask.mean() < AREA[1] and sure > options.sure:
            yield pixels, (mask * 255).astype(np.uint8)


def _sources(path: Path, exclude: Sequence[str], step: int) -> list[Path | TarImage]:
    """List every so many images of a folder or a tar, by their names, in forms that ``open_image`` accepts."""
    if path.is_dir():
        return [file for file in open_images(path)[0].sources if file.name not in exclude][::step]
    chosen = tar_images(path, lambda names: [name for name in names if Path(name).name not in exclude][::step])
    return list(chosen.values())


def _square(pixels: np.ndarray, mask: np.ndarray, side: int) -> Tensor:
    """Squash image and mask to ``(4, side, side)`` uint8."""
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    cover = Image.fromarray(mask).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.dstack([np.asarray(image), np.asarray(cover)]).transpose(2, 0, 1).copy())
