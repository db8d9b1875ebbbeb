"""Describe the surroundings of cells: how much of each label is near them, and on each side of them."""

from __future__ import annotations

import torch
from torch import Tensor

from partzoo.discovery.refine import resize

CLOSE, NEAR, FAR = (1, 3, 6), (4, 2), (11, 4)  # radii of windows; distance and radius of those on each side
SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # above, below, left, right
WINDOWS = (
    *((0, 0, radius) for radius in CLOSE),
    *((down * distance, across * distance, radius) for distance, radius in (NEAR, FAR) for down, across in SIDES),
)  # of each window the place of its middle, in rows and columns from the cell, and its radius
MAPS = len(WINDOWS) + 1  # number of results for each label


def surroundings(shares: Tensor) -> Tensor:
    """Return the means of shares over windows around each cell, and over the whole image.

    Args:
        shares: ``(R, h, w)`` in 0..1, on the grid of cells; it and the result may have a leading dimension B.

    Returns:
        ``(MAPS * R, ceil(h / 2), ceil(w / 2))``, on a grid with half as many cells along each side, whose cells are the
        unit of :data:`WINDOWS`. What lies outside the image counts as 0.
    """
    rows, columns = shares.shape[-2:]
    coarse = resize(shares, ((rows + 1) // 2, (columns + 1) // 2))
    rows, columns = coarse.shape[-2:]
    found = [
        _window(rows, down, radius, coarse) @ coarse @ _window(columns, across, radius, coarse).T
        for down, across, radius in WINDOWS
    ]
    return torch.cat([*found, coarse.mean((-2, -1), keepdim=True).expand_as(coarse)], dim=-3)


def _window(length: int, shift: int, radius: int, like: Tensor) -> Tensor:
    """Return the matrix ``(length, length)`` that averages over windows whose middle is ``shift`` cells away."""
    place = torch.arange(length, device=like.device)
    near = (place[:, None] + shift - place).abs() <= radius
    return near.to(like.dtype) / (2 * radius + 1)
