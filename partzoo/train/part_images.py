"""Images to train a part model on, with or without a foreground predicted for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from partzoo.data.image_sets import Examples, ImageSet
from partzoo.errors import UsageError
from partzoo.models.foreground import ForegroundModel
from partzoo.models.loading import load
from partzoo.train.datasets import DataOptions, read_images

SIDE = 192  # side of the squares in which the foreground is predicted, in pixels


@dataclass(frozen=True)
class PartOptions(DataOptions):
    """Options for reading images to train a part model on.

    Attributes:
        foreground: foreground model whose prediction becomes the fourth channel of each image; empty for none.
    """

    foreground: str = ""


def read_part_images(folder: str | Path, options: PartOptions, side: int, *, seed: int = 0) -> Examples:
    """Read the training images, ``(B, 3, side, side)``, or ``(B, 4, side, side)`` if the options name a foreground.

    Args:
        folder: folder of the data.
        options: options for reading.
        side: height and width in pixels.
        seed: random seed for ``options.per_class``.

    Raises:
        UsageError: a foreground is to be predicted of images that are cropped at random.
    """
    if options.foreground and options.frame == "random-crop":
        raise UsageError(
            "data.foreground is predicted once for each image, and data.frame='random-crop' changes images. Set one."
        )
    images = read_images(folder, options, side, seed=seed)
    if not options.foreground:
        return images
    return WithForeground(images, cast(ForegroundModel, load(options.foreground, device="cpu", dtype="float32")))


class WithForeground(Examples):
    """Images with the probability of their foreground, 0 to 255, as a fourth channel.

    The foreground of an image is predicted when the image is first drawn, and then kept.
    """

    def __init__(self, images: ImageSet, model: ForegroundModel) -> None:
        self._images, self._model = images, model
        self.labels, self.classes = images.labels, images.classes
        self._masks = torch.empty((len(images), 1, images.side, images.side), dtype=torch.uint8)
        self._known = torch.zeros(len(images), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: Tensor) -> Tensor:
        return self._with_masks(indices, self._images.batch(indices))

    def move(self, device: torch.device) -> None:
        self._images.move(device)
        self._model, self._masks = self._model.to(device), self._masks.to(device)

    def draw(self, indices: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        numbers, pixels = self._images.draw(indices, seed)
        return numbers, self._with_masks(numbers, pixels)

    def _with_masks(self, indices: Tensor, pixels: Tensor) -> Tensor:
        missing = ~self._known[indices]
        if missing.any():
            self._masks[indices[missing]] = self._predicted(pixels[missing].to(self._masks.device))
            self._known[indices[missing]] = True
        masks = self._masks[indices]
        return torch.cat([pixels.to(masks.device), masks], dim=1)

    @torch.inference_mode()
    def _predicted(self, pixels: Tensor) -> Tensor:
        x = interpolate(pixels.float(), (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
        found = self._model(self._model.preprocess.normalize(x))
        return interpolate(found, pixels.shape[2:], mode="bilinear", align_corners=False).mul(255).round().byte()


def check_foreground(options: PartOptions, weights: Mapping[str, float], start: str) -> None:
    """Raise a UsageError if a task uses a foreground, and the options name no model that predicts it.

    Args:
        options: options for reading the images.
        weights: weights of the task's losses.
        start: what the task starts from.
    """
    if weights["masks"] and not options.foreground:
        raise UsageError("masks needs data.foreground, the model that predicts the foreground.")
    if start == "clusters" and not options.foreground:
        raise UsageError("start='clusters' needs data.foreground, the model that predicts the foreground.")
    if weights["anchor"] and start == "random":
        raise UsageError("anchor needs start='clusters' or 'discovered'.")
