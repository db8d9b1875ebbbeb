"""A `Image` becomes what a model takes: a size that keeps the aspect, resized and normalized pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from partzoo.errors import UsageError
from partzoo.images.opening import OpenedImage

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """What a model's input must be.

    Attributes:
        size: side in pixels of the images it was trained on.
        mean, std: per channel, of pixels in 0..1.
        interpolation: ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, antialiased.
        multiple: height and width are best a multiple of this (the patch, or the coarsest stride).
    """

    size: int = 64
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"
    multiple: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return 3, self.size, self.size

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels ``(B, 3, H, W)`` uint8, as float32 with this mean and standard deviation."""
        pixels = pixels.float()
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels / 255 - mean) / std

    def denormalize(self, x: Tensor) -> Tensor:
        """Normalized images ``(..., 3, H, W)`` as levels of 0..255, float; the inverse of :meth:`normalize`."""
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return 255 * (mean + std * x)


def working_size(size: tuple[int, int], target: int, multiple: int) -> tuple[int, int]:
    """Size at which to compute: the longer side near ``target``, the aspect as near as multiples allow.

    Args:
        size: ``(height, width)`` of the image.
        target: wished length of the longer side, in pixels.
        multiple: both sides come out as multiples of it, at least one.

    Returns:
        ``(height, width)``.

    Raises:
        UsageError: a number is below 1.
    """
    if min(*size, target, multiple) < 1:
        raise UsageError(f"size={size}, target={target} and multiple={multiple} must all be at least 1.")

    def rounded(length: float) -> int:
        return max(int(length / multiple + 0.5), 1) * multiple

    scale = rounded(target) / max(size)
    return rounded(size[0] * scale), rounded(size[1] * scale)


def to_tensor(image: OpenedImage | np.ndarray, size: tuple[int, int], preprocess: Preprocess) -> Tensor:
    """Resize (antialiased) and normalize an image for a model.

    Args:
        image: a ``Image`` or ``(H, W, 3)`` uint8 pixels.
        size: ``(h, w)`` to resize to; ``working_size`` keeps the aspect.
        preprocess: the model's ``mean`` and ``std`` (of values in 0..1), ``interpolation`` (a name of PIL's).

    Returns:
        ``(3, h, w)`` float32.
    """
    import torch

    pixels = image.pixels if isinstance(image, OpenedImage) else image
    try:
        resample = Image.Resampling[preprocess.interpolation.upper()]
    except KeyError:
        choices = ", ".join(mode.name.lower() for mode in Image.Resampling)
        raise UsageError(f"Unknown interpolation {preprocess.interpolation!r}. Choose one of {choices}.") from None
    if pixels.shape[:2] != tuple(size):
        pixels = np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), resample))
    scale = 1 / (255 * np.asarray(preprocess.std, np.float32))
    shift = np.asarray(preprocess.mean, np.float32) / np.asarray(preprocess.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray((pixels * scale - shift).transpose(2, 0, 1)))
