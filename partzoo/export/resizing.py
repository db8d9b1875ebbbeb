"""Resize images inside an exported program as :mod:`partzoo.images` does with Pillow, for images of any size."""

from __future__ import annotations

import torch
from torch import Tensor

from partzoo.images.preprocess import Preprocess
from partzoo.images.resampling import line_weights

Size = tuple[int, int]
ONE, HALF = 2**22, 2**11  # Pillow's weights are whole numbers of 22 bits
LEAST = 2  # multiples on each side: the exporter cannot follow maps of a single row, which only panoramas have


def at_working_size(image: Tensor, target: int, preprocess: Preprocess, multiple: int) -> Tensor:
    """Resize images as :func:`partzoo.images.preprocess.working_size` and Pillow do.

    Args:
        image: ``(B, 3, H, W)`` float32, 0..255.
        target: longer side of the result in pixels, as for ``working_size``.
        preprocess: its interpolation is used.
        multiple: number of pixels that both sides become a multiple of.

    Returns:
        ``(B, 3, h, w)`` float32, whole numbers in 0..255.
    """
    return as_pillow(image, working_size((image.shape[2], image.shape[3]), target, multiple), preprocess.interpolation)


def working_size(size: Size, target: int, multiple: int) -> Size:
    """Compute ``partzoo.images.preprocess.working_size`` in an exported program, where the size is not yet known.

    The arithmetic is in tensors of float64, so that it rounds alike. To the exporter the results are new sizes: their
    formulas would make every shape after them a long expression, which takes minutes to trace. Both sides have at least
    :data:`LEAST` multiples, which makes a difference for images that are many times as long as they are wide.
    """
    whole = max(int(target / multiple + 0.5), 1) * multiple
    # The target is a tensor because torch divides a number by a tensor in two steps, which round differently.
    *sides, longer = (torch.scalar_tensor(side, dtype=torch.float64) for side in (*size, whole))
    height_and_width = torch.stack(sides)
    scale = longer / height_and_width.amax(0)
    cells = (height_and_width * scale / multiple + 0.5).floor().clamp(min=LEAST).long()
    rows, columns = (int_of(count, LEAST) for count in cells.unbind())
    for count in (rows, columns):
        torch._check(count <= whole // multiple)
    return rows * multiple, columns * multiple


def int_of(number: Tensor, least: int) -> int:
    """Return a whole number of at least ``least`` that a program computes, as a size for other operations."""
    found = number.item()
    torch._check(found >= least)
    return found  # type: ignore[return-value]


def as_pillow(image: Tensor, size: Size, interpolation: str) -> Tensor:
    """Resize images ``(B, 3, H, W)`` in 0..255 exactly as Pillow 13 does 8-bit images, in any engine.

    Width and height are resized one after the other, each antialiased and rounded to whole numbers. The width comes
    first, unless the height shrinks by more than twice as many pixels; before Pillow 13 it always came first. Resizing
    by an engine rounds a few values to the other side, and few are enough to change clusters.
    """
    (height, width), (rows, columns) = image.shape[2:], size
    lower, narrower, full, target = (
        torch.scalar_tensor(count, dtype=torch.int64) for count in (height - rows, width - columns, width, columns)
    )
    first = int_of(torch.where((lower > 0) & (lower > 2 * narrower), full, target), 1)
    image = _summed(image, pillow_weights(width, first, interpolation).mT)
    image = _summed(pillow_weights(height, rows, interpolation), image)
    return _summed(image, pillow_weights(first, columns, interpolation).mT)


def pillow_weights(source: int, target: int, interpolation: str) -> Tensor:
    """Return ``line_weights`` as Pillow rounds them, float64 whole numbers in units of ``1 / ONE``."""
    weights = line_weights(source, target, interpolation) * ONE
    return torch.where(weights < 0, (weights - 0.5).ceil(), (weights + 0.5).floor())


def _summed(left: Tensor, right: Tensor) -> Tensor:
    """Multiply images in 0..255 by weights of :func:`pillow_weights`, on either side, and round to 0..255.

    The product is exact in float32, because the weights are split into two halves of 11 bits.
    """
    weights = left if left.ndim == 2 else right
    coarse = (weights / HALF).round()
    halves = [half.float() for half in (coarse, weights - HALF * coarse)]
    high, low = (half @ right if left.ndim == 2 else left @ half for half in halves)
    total = high.int() * HALF + low.int() + ONE // 2
    return total.clamp(min=0).div(ONE, rounding_mode="floor").clamp(max=255).float()
