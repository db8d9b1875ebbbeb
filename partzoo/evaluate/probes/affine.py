"""Augment images for training probes, by random affine warps and by erasing a square."""

from __future__ import annotations

import torch
from torch import Tensor

from partzoo.data.warp import warp


def affine_matrices(angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor, side: int) -> Tensor:
    """Return the map from the pixels of warped images to those of the originals, as in torchvision's ``affine``.

    Args:
        angle, shear: ``(B,)`` radians; positive angles turn clockwise, a shear is along x.
        shift: ``(B, 2)`` x and y, in pixels.
        scale: ``(B,)``.
        side: height and width of the images in pixels.

    Returns:
        ``(B, 2, 3)``: the map of pixel indices (x, y, 1) of the result to those of the image, for
        :func:`partzoo.data.warp.warp`.
    """
    cos, sin, tan = angle.cos(), angle.sin(), shear.tan()
    inverse = (
        torch.stack([torch.stack([cos - sin * tan, sin + cos * tan], -1), torch.stack([-sin, cos], -1)], dim=1)
        / scale[:, None, None]
    )
    centre = (side - 1) / 2
    offset = centre - (inverse @ (centre + shift)[..., None])
    return torch.cat([inverse, offset], dim=2)


def random_affine(
    pixels: Tensor,
    *,
    warped: float = 0.5,
    degrees: float = 18.0,
    shift: float = 0.1,
    scale: tuple[float, float] = (0.9, 1.1),
    shear: float = 10.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Warp some images at random, each with a different rotation, shift, scale and shear, with black outside.

    Args:
        pixels: ``(B, C, S, S)`` float.
        warped: share of the images that are warped.
        degrees, shear: largest angles in degrees, in either direction.
        shift: largest shift along x and along y, as a share of the side; shifts are whole pixels.
        scale: range of the scaling factor.
        generator: source of randomness, on the images' device.

    Source: Spatial Reasoning, section 4.3 and figure 4; the numbers are from its published code.
    """
    count, side = len(pixels), pixels.shape[-1]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(count, *shape, device=pixels.device).uniform_(low, high, generator=generator)

    turns, shears = uniform(-degrees, degrees).deg2rad(), uniform(-shear, shear).deg2rad()
    shifts, scales = (uniform(-shift, shift, 2) * side).round(), uniform(*scale)
    moved = warp(pixels, affine_matrices(turns, shifts, scales, shears, side))
    return torch.where((uniform(0, 1) < warped)[:, None, None, None], moved, pixels)


def random_erasing(
    pixels: Tensor, *, erased: float = 0.5, area: float = 0.111, generator: torch.Generator | None = None
) -> Tensor:
    """Set a square at a random position to zero, the data's mean, in some normalized images ``(B, C, S, S)``.

    Args:
        erased: share of the images that get a square.
        area: area of the square, as a share of the image's area.
        generator: source of randomness, on the images' device.

    Source: as in :func:`random_affine`.
    """
    count, side = len(pixels), pixels.shape[-1]
    length = round(side * area**0.5)
    low = torch.randint(side - length + 1, (count, 2, 1), device=pixels.device, generator=generator)
    along = torch.arange(side, device=pixels.device)
    rows, columns = ((along >= low) & (along < low + length)).unbind(1)
    chosen = torch.rand(count, 1, 1, device=pixels.device, generator=generator) < erased
    return pixels.masked_fill((rows[:, :, None] & columns[:, None] & chosen)[:, None], 0.0)
