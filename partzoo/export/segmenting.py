"""The foreground of a batch of images in an exported program, as :mod:`partzoo.discovery.segmentation` finds it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from partzoo.discovery.segmentation import BLANK, CRUMB, LIKELIEST

ALL = (1, 2, 3)
ROUNDS, JUMPS = 12, 4  # rounds in which pieces are joined, and steps along pointers in each


def scored(found: Tensor, lab: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a foreground model's probabilities into scores, as ``segmentation.segment`` does.

    Args:
        found: ``(B, 1, h, w)`` probabilities on the grid of cells.
        lab: ``(B, 3, h, w)`` CIELAB colours of the cells.

    Returns:
        Scores ``(B, 1, h, w)``, and their certainty ``(B,)``.
    """
    span = lab.amax((2, 3)) - lab.amin((2, 3))
    seen = span.amax(1) >= BLANK
    score = without_crumbs(at_least_something(found))
    return torch.where(seen[:, None, None, None], score, 0.0), torch.where(seen, certainty(found), 0.0)


def at_least_something(found: Tensor) -> Tensor:
    """Rescale probabilities as ``segmentation.at_least_something`` does."""
    threshold = (LIKELIEST * found.amax(ALL, keepdim=True)).clamp(max=0.5)
    below = 0.5 * found / threshold.clamp(min=1e-6)
    above = 0.5 + 0.5 * (found - threshold) / (1 - threshold).clamp(min=1e-6)
    return torch.where(found < threshold, below, above).clamp(0, 1)


def without_crumbs(score: Tensor) -> Tensor:
    """Set small pieces to background as ``segmentation.without_crumbs`` does."""
    inside = score >= 0.5
    areas = piece_areas(inside.float())
    return torch.where(inside & (areas < CRUMB * areas.amax(ALL, keepdim=True)), 1 - score, score)


def certainty(score: Tensor) -> Tensor:
    """Compute ``segmentation.certainty`` of each image, ``(B,)``."""
    inside = (score >= 0.5).float()
    return (score * inside).sum(ALL) / (inside.sum(ALL) + (score * (1 - inside)).sum(ALL)).clamp(min=1e-6)


def piece_areas(inside: Tensor) -> Tensor:
    """Return the area of the connected piece that each cell of ``(B, 1, h, w)``, 0 or 1, belongs to; 0 outside.

    Cells point to cells with higher numbers, at first to themselves. In each round a cell takes the highest number that
    its neighbours point to, and so does the cell that it points to; then pointers are followed to their ends. Exporters
    cannot loop until nothing changes, but the number of pieces at least halves each time, and mazes need five rounds.
    """
    batch, _, rows, columns = inside.shape
    own = torch.arange(1, rows * columns + 1, dtype=torch.float32).view(1, 1, rows, columns) * inside
    points = pad(own.flatten(1), (1, 0)).long()  # the first entry stands for all cells outside
    for _ in range(ROUNDS):
        cells = points[:, 1:]
        highest = (max_pool2d(cells.float().view_as(inside), 3, 1, 1) * inside).flatten(1).long()
        points = torch.cat([points[:, :1], torch.maximum(cells, highest)], dim=1).scatter_reduce(
            1, cells, highest, "amax"
        )
        for _ in range(JUMPS):
            points = points.gather(1, points)
    pieces = points[:, 1:]
    counts = torch.zeros(batch, rows * columns + 1).scatter_add(1, pieces, inside.flatten(1))
    return counts.gather(1, pieces).view_as(inside)
