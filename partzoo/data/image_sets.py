"""Images in memory or on disk that training and evaluation take by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from partzoo.data.reading import squash_plain
from partzoo.errors import ImageError, TooLargeError, UsageError
from partzoo.images.opening import open_image

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


class ImageSet(Examples):
    """Square images of one size, with labels where the data has them.

    Images are decoded when first asked for and kept as uint8, as long as all of them fit into
    ``CACHE_BYTES``; larger sets are decoded each time.

    Attributes:
        files: where they are, or their encoded bytes; empty for those that were in memory from the first.
        side: height and width in pixels.
        labels: ``(N,)`` int64, or None.
        classes: the labels' names.
        frame: how an image becomes a square: ``"crop"``, the centre of it, its shorter side resized; ``"squash"``, all
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
    def from_pixels(cls, pixels: Tensor, labels: Tensor | None, classes: list[str]) -> ImageSet:
        """Images ``(N, 3, side, side)`` uint8 that are in memory already."""
        self = cls([], pixels.shape[-1], labels, classes)
        self._pixels, self._known = pixels, torch.ones(len(pixels), dtype=torch.bool)
        return self

    def __len__(self) -> int:
        return len(self._known)

    def batch(self, indices: Tensor) -> Tensor:
        """The images with these numbers, ``(B, 3, side, side)`` uint8.

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
        name = f"image {index + 1} of {len(self)}" if isinstance(file, bytes) else str(file)
        try:
            pixels = open_image(file, name=name).pixels
        except TooLargeError:
            raise
        except ImageError as error:
            raise ImageError(f"{name} cannot be read as an image: {error}") from error
        if self.frame == "squash":
            pixels = squash_plain(pixels, self.side)
        else:
            image = ImageOps.fit(Image.fromarray(pixels), (self.side, self.side), Image.Resampling.BICUBIC)
            pixels = np.array(image)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def resized(self, side: int) -> ImageSet:
        """All images in another size, in memory."""
        pixels = resized(self.batch(torch.arange(len(self))), side)
        return ImageSet.from_pixels(pixels, self.labels, self.classes)

    def select(self, indices: Tensor) -> ImageSet:
        """The images with these numbers, in this order, as a set of their own."""
        labels = None if self.labels is None else self.labels[indices]
        if not self.files:
            return ImageSet.from_pixels(self._pixels[indices], labels, self.classes)
        files = [self.files[index] for index in indices.tolist()]
        return ImageSet(files, self.side, labels, self.classes, self.frame)


def at_most(images: ImageSet, count: int) -> ImageSet:
    """``count`` images or, where there are fewer, all: of files, spread evenly; of pixels in memory, the first."""
    if count >= len(images):
        return images
    numbers = torch.arange(count)
    return images.select(numbers * len(images) // count if images.files else numbers)


def resized(pixels: Tensor, side: int) -> Tensor:
    """Images ``(N, 3, S, S)`` uint8 in another size, bicubic with antialiasing."""
    if pixels.shape[-1] == side:
        return pixels
    resize = torch.nn.functional.interpolate
    return torch.cat(
        [
            resize(chunk.float(), side, mode="bicubic", antialias=True).round().clamp(0, 255).byte()
            for chunk in pixels.split(1000)
        ]
    )
