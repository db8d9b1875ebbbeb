"""Prepare an image for a model: resize it, keeping its aspect ratio, and normalize it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from partzoo.errors import UsageError
from partzoo.images.opening import OpenedImage
from partzoo.limits import check_size

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing that a model expects of its input.

    Attributes:
        size: side in pixels of the images that the model was trained on.
        mean, std: mean and standard deviation of each channel, for pixels in 0..1.
        interpolation: ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, always antialiased.
        multiple: number of pixels that height and width should be a multiple of (the patch, or the coarsest stride).
    """

    size: int = 64
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"
    multiple: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a training image."""
        return 3, self.size, self.size

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalize pixels ``(B, 3, H, W)`` in 0..255 to float32, with this mean and standard deviation."""
        pixels = pixels.float()
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels / 255 - mean) / std

    def denormalize(self, x: Tensor) -> Tensor:
        """Convert normalized images ``(..., 3, H, W)`` to float pixels in 0..255; the inverse of :meth:`normalize`."""
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return 255 * (mean + std * x)


def working_size(size: tuple[int, int], target: int, multiple: int) -> tuple[int, int]:
    """Compute the size to which an image is resized for a model; the aspect ratio is kept as closely as possible.

    Args:
        size: ``(height, width)`` of the image, in pixels.
        target: desired length of the longer side, in pixels.
        multiple: number of pixels that both sides become a multiple of.

    Returns:
        ``(height, width)``.

    Raises:
        UsageError: a number is below 1, or ``target`` is above :data:`partzoo.limits.MAX_SIZE`.
    """
    if min(*size, target, multiple) < 1:
        raise UsageError(f"size={size}, target={target} and multiple={multiple} must all be at least 1.")
    check_size(target)

    def rounded(length: float) -> int:
        return max(int(length / multiple + 0.5), 1) * multiple

    scale = rounded(target) / max(size)
    return rounded(size[0] * scale), rounded(size[1] * scale)


def resized(pixels: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize pixels ``(H, W, 3)`` uint8 to ``size`` (height, width) with Pillow, antialiased.

    Raises:
        UsageError: the interpolation is unknown.
    """
    try:
        resample = Image.Resampling[interpolation.upper()]
    except KeyError:
        choices = ", ".join(mode.name.lower() for mode in Image.Resampling)
        raise UsageError(f"Unknown interpolation {interpolation!r}. Choose one of {choices}.") from None
    if pixels.shape[:2] == tuple(size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), resample))


def to_tensor(image: OpenedImage | np.ndarray, size: tuple[int, int], preprocess: Preprocess) -> Tensor:
    """Resize (antialiased) and normalize an image for a model.

    Args:
        image: an opened image, or its pixels ``(H, W, 3)`` uint8.
        size: ``(h, w)`` to resize to; :func:`working_size` chooses one that keeps the aspect ratio.
        preprocess: the model's preprocessing.

    Returns:
        ``(3, h, w)`` float32.

    Raises:
        UsageError: the interpolation is unknown.
    """
    import torch

    pixels = image.pixels if isinstance(image, OpenedImage) else image
    pixels = resized(pixels, size, preprocess.interpolation)
    scale = 1 / (255 * np.asarray(preprocess.std, np.float32))
    shift = np.asarray(preprocess.mean, np.float32) / np.asarray(preprocess.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray((pixels * scale - shift).transpose(2, 0, 1)))
