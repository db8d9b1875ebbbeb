"""An image resized for a model, as pixels and as the normalized tensor that the model takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

import torch
from torch import Tensor

from partzoo.images.opening import OpenedImage
from partzoo.images.preprocess import resized, working_size
from partzoo.models.base import Model

CELL = 4  # working pixels between neighbouring cells of the grid of foreground, colour and position


@dataclass(frozen=True, eq=False)
class View:
    """An image at its working size.

    Attributes:
        pixels: ``(3, H, W)`` float32, 0..1, on the CPU.
        batch: ``(1, 3, H, W)`` normalized, on the model's device.
    """

    pixels: Tensor
    batch: Tensor


def view_image(image: OpenedImage, model: Model, size: int) -> View:
    """Resize an image to a longer side of about ``size`` pixels, in multiples that suit the model and the grid."""
    preprocess = model.preprocess
    working = working_size(image.size, size, lcm(preprocess.multiple, CELL))
    x = torch.from_numpy(resized(image.pixels, working, preprocess.interpolation).transpose(2, 0, 1).copy())
    return View(x.float() / 255, preprocess.normalize(x[None].to(next(model.parameters()).device)))
