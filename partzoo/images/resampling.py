"""Antialiased resizing as products with matrices, for exported programs.

Engines disagree on antialiasing: some ignore it, and some round sizes. All of them can multiply.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from partzoo.errors import UsageError


def multiplied(maps: Tensor, size: Sequence[int], interpolation: str) -> Tensor:
    """Resize maps ``(..., h, w)`` to a size, antialiased, as ``torch.nn.functional.interpolate`` does."""
    down, across = (
        line_weights(source, target, interpolation).to(maps)
        for source, target in zip(maps.shape[-2:], size, strict=True)
    )
    return down @ maps @ across.mT


def line_weights(source: int, target: int, interpolation: str) -> Tensor:
    """Return the weights ``(target, source)`` float64 of each pixel of a line for each pixel of the resized line.

    They are Pillow's, and those of torch's antialiased modes. Each row sums to one.

    Raises:
        UsageError: the interpolation is neither ``"bilinear"`` nor ``"bicubic"``.
    """
    try:
        kernel, reach = KERNELS[interpolation]
    except KeyError:
        choices = ", ".join(KERNELS)
        raise UsageError(f"Unknown interpolation {interpolation!r}. Choose one of {choices}.") from None
    before, after = (torch.scalar_tensor(length, dtype=torch.float64) for length in (source, target))
    scale = before / after
    stretch = scale.clamp(min=1)
    centres = (torch.arange(target, dtype=torch.float64)[:, None] + 0.5) * scale
    places = torch.arange(source, dtype=torch.float64)
    first, last = (centres - reach * stretch + 0.5).floor(), (centres + reach * stretch + 0.5).floor()
    weights = kernel((places - centres + 0.5) / stretch) * ((places >= first) & (places < last))
    return weights / weights.sum(1, keepdim=True)


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, -0.5 * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


KERNELS = {"bilinear": (_bilinear, 1), "bicubic": (_bicubic, 2)}
