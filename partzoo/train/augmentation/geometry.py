"""Crop, flip and warp whole batches on their device, without a loop over images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from partzoo.data.warp import warp


def random_crop_flip(
    pixels: Tensor, side: int, *, scale: tuple[float, float] = (0.75, 1.0), generator: torch.Generator | None = None
) -> Tensor:
    """Crop a random square out of each image, resize it, and flip half of them.

    Args:
        pixels: ``(B, 3, H, W)`` float.
        side: height and width of the result in pixels.
        scale: range of the square's side, as a share of the image's.
        generator: source of randomness, on the images' device.

    Returns:
        ``(B, 3, side, side)``, sampled bilinearly.
    """
    batch, device = len(pixels), pixels.device
    scales = torch.empty(batch, device=device).uniform_(*scale, generator=generator)
    shifts = (torch.rand(batch, 2, generator=generator, device=device) * 2 - 1) * (1 - scales[:, None])
    flips = torch.randint(0, 2, (batch,), generator=generator, device=device) * 2 - 1
    theta = pixels.new_zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scales * flips, scales
    theta[:, :, 2] = shifts
    grid = nn.functional.affine_grid(theta, [batch, 3, side, side], align_corners=False)
    return nn.functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def similarity_matrices(
    scale: Tensor, angle: Tensor, shift: Tensor, side: int, box: tuple[float, float, float] | None = None
) -> Tensor:
    """Return the matrices that map each pixel of warped images to its source in the images.

    A pixel ``q`` of the result comes from ``c + L s t + (L s / side) R (q - side / 2)`` in the image, where ``c`` and
    ``L`` are the box's centre and side, and ``R`` rotates x towards y (clockwise, as y points down).

    Args:
        scale, angle: ``(B,)``, the factor ``s``, and the angle in radians.
        shift: ``(B, 2)``, ``t``: x and y as shares of the box's scaled side.
        side: height and width of the images in pixels.
        box: left, top and side in pixels; None means the whole image.

    Returns:
        ``(B, 2, 3)``: matrices from pixel indices (x, y, 1) of the result to those of the image.

    Source: PartFormer, section 4.3, as published with its code.
    """
    left, top, length = box or (0, 0, side)
    zoom = scale * length / side
    turned = zoom[:, None, None] * torch.stack(
        [torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], dim=1
    )
    centre = torch.stack([left + length / 2 + 0 * scale, top + length / 2 + 0 * scale], dim=1)
    offset = centre + length * scale[:, None] * shift - (turned * (side / 2)).sum(2)
    return torch.cat([turned, offset[..., None]], dim=2)


def random_similarity(
    pixels: Tensor,
    *,
    degrees: float = 15.0,
    max_degrees: float = 30.0,
    scale: float = 0.05,
    shift: float = 0.05,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Rotate, scale and shift each image at random, with black outside the image.

    Args:
        pixels: ``(B, C, S, S)`` float.
        degrees: standard deviation of the angle, in degrees.
        max_degrees: largest angle, in degrees, to which angles are clipped.
        scale, shift: standard deviation and bound of the scale, and of the shift as a share of the side.
        generator: source of randomness, on the images' device.

    Source: PartFormer, section 4.3; the distributions as published with its code.
    """

    def draw(*shape: int) -> Tensor:
        return torch.randn(len(pixels), *shape, generator=generator, device=pixels.device)

    angle = (degrees * draw()).clamp(-max_degrees, max_degrees).deg2rad()
    scales = 1 + (scale * draw()).clamp(-scale, scale)
    shifts = (shift * draw(2)).clamp(-shift, shift)
    return warp(pixels, similarity_matrices(scales, angle, shifts, pixels.shape[-1]))


def random_flip(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirror half of the images ``(B, C, H, W)``, drawn at random, left to right."""
    flipped = torch.randint(0, 2, (len(pixels), 1, 1, 1), generator=generator, device=pixels.device).bool()
    return torch.where(flipped, pixels.flip(-1), pixels)
