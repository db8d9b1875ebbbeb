"""Image sets in memory or on disk, indexed by number, for training and evaluation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from partzoo.data.reading import squash_plain
from partzoo.data.tars import TarImage, source_name
from partzoo.errors import ImageError, TooLargeError, UsageError
from partzoo.images.ahead import read_ahead
from partzoo.images.opening import open_image
from partzoo.skipping import PassOver, warn_of

CACHE_BYTES = 4 << 30
READ_AT_ONCE = 100  # images of a set that are decoded together
Frame = Literal["crop", "squash", "random-crop"]


class Examples:
    """A set of training examples, indexed by number.

    Attributes:
        labels: ``(N,)`` int64, or None.
        classes: names of the labels.
    """

    labels: Tensor | None
    classes: list[str]

    def __len__(self) -> int:
        raise NotImplementedError

    def batch(self, indices: Tensor) -> Tensor:
        """Return the examples with these numbers, ``(B, ...)``."""
        raise NotImplementedError

    def draw(self, indices: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return examples to train on: those with these numbers, or replacements for those that cannot be read.

        Args:
            indices: ``(B,)`` int64.
            seed: random seed of a set that changes its examples whenever they are drawn.

        Returns:
            The numbers of the examples, ``(B,)``, and the examples, ``(B, ...)``.
        """
        return indices, self.batch(indices)

    def move(self, device: torch.device) -> None:
        """Keep what is in memory on a device instead, where batches are then made; sets on disk stay as they are."""

    def epochs(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
        """Yield endless batches of numbers, in a new random order every epoch.

        Args:
            batch_size: size of a batch; a batch may span two epochs.
            seed: random seed of the orders.
            start: number of examples to skip at the beginning (those seen before training was resumed).

        Yields:
            ``(batch_size,)`` int64.
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
    """A set of square images of one size, with labels if the data has them.

    Images are decoded when they are first indexed and then kept as uint8, if all of them fit into ``CACHE_BYTES``; in
    larger sets, and with random crops, images are decoded each time.

    Attributes:
        files: paths of the images, or images from a tar; empty for images that are in memory from the beginning.
        side: height and width in pixels.
        labels: ``(N,)`` int64, or None.
        classes: names of the labels.
        frame: how an image becomes a square: ``"crop"`` resizes its shorter side and crops the centre, ``"squash"``
            resizes both sides without keeping the aspect ratio, and ``"random-crop"`` crops a square at random along
            the longer side whenever an image is drawn to train on, and the centre otherwise.
    """

    def __init__(
        self,
        files: Sequence[Path | TarImage],
        side: int,
        labels: Tensor | None,
        classes: list[str],
        frame: Frame = "crop",
    ) -> None:
        if frame not in get_args(Frame):
            raise UsageError(f"frame={frame!r} must be 'crop', 'squash' or 'random-crop'.")
        self.files, self.side, self.labels, self.classes, self.frame = files, side, labels, classes, frame
        fits = len(files) * 3 * side * side <= CACHE_BYTES and frame != "random-crop"
        self._pixels = torch.empty((len(files) if fits else 0, 3, side, side), dtype=torch.uint8)
        self._known = torch.zeros(len(files), dtype=torch.bool)
        self._bad: set[int] = set()

    @classmethod
    def from_pixels(cls, pixels: Tensor, labels: Tensor | None, classes: list[str]) -> ImageSet:
        """Make a set of images in memory, ``(N, 3, side, side)`` uint8."""
        self = cls([], pixels.shape[-1], labels, classes)
        self._pixels, self._known = pixels, torch.ones(len(pixels), dtype=torch.bool)
        return self

    def __len__(self) -> int:
        return len(self._known)

    def batch(self, indices: Tensor) -> Tensor:
        """Return the images with these numbers, ``(B, 3, side, side)`` uint8.

        Raises:
            ImageError: a file cannot be read.
        """
        missing = indices[~self._known[indices]].tolist()
        if not missing:
            return self._pixels[indices]
        decoded = self._decoded(missing, [0.5] * len(missing))
        if len(self._pixels) == 0:
            return decoded
        self._pixels[missing] = decoded.to(self._pixels.device)
        self._known[missing] = True
        return self._pixels[indices]

    def move(self, device: torch.device) -> None:
        self._pixels = self._pixels.to(device)

    def draw(self, indices: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return images to train on; each one that cannot be read is replaced by the next one that can.

        A warning names each bad image once. The replacement depends on the files alone, and a random crop on the seed
        and the image's number, so a resumed run uses the same images as an uninterrupted one.

        Raises:
            ImageError: no image can be read.
        """
        while True:
            numbers = torch.tensor([self._readable(number) for number in indices.tolist()])
            try:
                if self.frame != "random-crop":
                    return numbers, self.batch(numbers)
                places = [random.Random(f"{seed}, {number}").random() for number in numbers.tolist()]
                return numbers, self._decoded(numbers.tolist(), places)
            except ImageError:
                self._find_bad(numbers, warn_of)

    def _decoded(self, numbers: Sequence[int], places: Sequence[float]) -> Tensor:
        """Decode images; a place of 0..1 is that of the crop along the longer side, from the left or the top."""

        def read(turn: int) -> Tensor:
            return self._decode(numbers[turn], places[turn])

        return torch.stack(list(read_ahead(read, range(len(numbers)), len(numbers), threads=None)))

    def _readable(self, number: int) -> int:
        """Return the number itself, or the next number that is not known to be bad."""
        if len(self._bad) == len(self):
            raise ImageError(f"None of the {len(self)} images can be read.")
        while number in self._bad:
            number = (number + 1) % len(self)
        return number

    def usable(self, pass_over: PassOver | None = warn_of) -> ImageSet:
        """Return the set without the images that cannot be read, after decoding all of them.

        Args:
            pass_over: function that is called for each of these; None raises the error.

        Raises:
            ImageError: no image can be read, or one of them cannot and there is no ``pass_over``.
        """
        if pass_over is None or self._known.all():
            return self
        for numbers in torch.arange(len(self)).split(READ_AT_ONCE):
            try:
                self.batch(numbers)
            except ImageError:
                self._find_bad(numbers, pass_over)
        if len(self._bad) == len(self):
            raise ImageError(f"None of the {len(self)} images can be read.")
        kept = [number for number in range(len(self)) if number not in self._bad]
        return self.select(torch.tensor(kept)) if self._bad else self

    def _find_bad(self, numbers: Tensor, pass_over: PassOver) -> None:
        for number in numbers[~self._known[numbers]].unique().tolist():
            try:
                self._decode(number)
            except ImageError as error:
                self._bad.add(number)
                pass_over(self._name(number), error)

    def _name(self, index: int) -> str:
        """Return the name of an image for messages: its path, or its name in a tar."""
        return source_name(self.files[index])

    def _decode(self, index: int, place: float = 0.5) -> Tensor:
        name = self._name(index)
        try:
            pixels = open_image(self.files[index], name=name).pixels
        except TooLargeError:
            raise
        except ImageError as error:
            raise ImageError(f"{name} cannot be read as an image: {error}") from error
        if self.frame == "squash":
            pixels = squash_plain(pixels, self.side)
        else:
            size, centering = (self.side, self.side), (place, place)
            image = ImageOps.fit(Image.fromarray(pixels), size, Image.Resampling.BICUBIC, centering=centering)
            pixels = np.array(image)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def resized(self, side: int) -> ImageSet:
        """Resize all images to a different side, in memory."""
        pixels = resized(self.batch(torch.arange(len(self))), side)
        return ImageSet.from_pixels(pixels, self.labels, self.classes)

    def select(self, indices: Tensor) -> ImageSet:
        """Return a new set of the images with these numbers, in this order."""
        labels = None if self.labels is None else self.labels[indices]
        if not self.files:
            return ImageSet.from_pixels(self._pixels[indices], labels, self.classes)
        files = [self.files[index] for index in indices.tolist()]
        return ImageSet(files, self.side, labels, self.classes, self.frame)


def at_most(images: ImageSet, count: int) -> ImageSet:
    """Select at most ``count`` images: evenly spaced ones if they are files, the first ones if they are in memory."""
    if count >= len(images):
        return images
    numbers = torch.arange(count)
    return images.select(numbers * len(images) // count if images.files else numbers)


def resized(pixels: Tensor, side: int) -> Tensor:
    """Resize images ``(N, 3, S, S)`` uint8 to a different side, bicubically with antialiasing."""
    if pixels.shape[-1] == side:
        return pixels
    resize = torch.nn.functional.interpolate
    return torch.cat(
        [
            resize(chunk.float(), side, mode="bicubic", antialias=True).round().clamp(0, 255).byte()
            for chunk in pixels.split(1000)
        ]
    )
