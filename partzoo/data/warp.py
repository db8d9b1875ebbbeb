"""Apply affine warps to batches of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def warp(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Warp images ``(B, C, S, S)`` float with affine ``matrices`` ``(B, 2, 3)``, bilinearly, with black outside.

    The matrices map pixel indices (x, y, 1) of the result to those of the image.
    """
    side = pixels.shape[-1]
    linear = matrices[..., :2]
    # Pixel index i lies at (2 i + 1) / side - 1 in grid_sample's units.
    offset = (2 * matrices[..., 2] + 1) / side - 1 + (linear * (1 - 1 / side)).sum(2)
    theta = torch.cat([linear, offset[..., None]], dim=2).to(pixels.dtype)
    grid = nn.functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    return nn.functional.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)
