"""Augmentation of whole batches on their device, without a loop over pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def random_crop_flip(
    pixels: Tensor, side: int, *, scale: tuple[float, float] = (0.75, 1.0), generator: torch.Generator | None = None
) -> Tensor:
    """Crop a random square out of each picture, resize it, and flip half of them.

    Args:
        pixels: ``(B, 3, H, W)`` float.
        side: height and width of the result in pixels.
        scale: range of the square's side, as a part of the picture's.
        generator: source of randomness, on the pictures' device.

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
