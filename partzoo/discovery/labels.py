"""Convert part maps to labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def argmax(maps: Tensor) -> np.ndarray:
    """Return the arg-max ``(h, w)`` of ``(K, h, w)`` maps, the lowest if equal; much faster than Tensor.argmax."""
    best, winner = maps[0].clone(), np.zeros(maps.shape[1:], np.uint16)
    for number, each in enumerate(maps[1:], 1):
        winner[(each > best).numpy()] = number
        torch.maximum(best, each, out=best)
    return winner


def argmax_inside(maps: Tensor) -> np.ndarray:
    """Return labels from the foreground's score and the parts' shares: background wherever the score is below 0.5."""
    if len(maps) == 1:
        return np.zeros(maps.shape[1:], np.uint16)
    return np.where((maps[0] >= 0.5).numpy(), argmax(maps[1:]) + 1, 0)


def contest(maps: Tensor) -> Tensor:
    """Return scores ``(..., K + 1, h, w)``, background first, whose arg-max equals :func:`argmax_inside`."""
    score, shares = maps.tensor_split([1], dim=-3)
    if not shares.shape[-3]:
        return torch.ones_like(score)
    return torch.cat([1 - score, score * shares / shares.amax(-3, keepdim=True).clamp(min=1e-6)], dim=-3)


def grouped(maps: Tensor, rows: Sequence[int]) -> Tensor:
    """Join maps of centres into maps of parts, so that :func:`argmax_inside` finds each centre's cells unchanged.

    A part's share is the highest share of its centres. Where a centre of the background has the highest share, the
    foreground's score falls below 0.5.

    Args:
        maps: ``(..., R + 1, h, w)``, the foreground's score and the centres' shares.
        rows: part (1..K) of each centre, or 0 for the background.

    Returns:
        ``(..., K + 1, h, w)``, the foreground's score and the parts' shares, zero for unused numbers.
    """
    score, shares = maps.tensor_split([1], dim=-3)
    groups = [[i for i, part in enumerate(rows) if part == number] for number in range(max(rows, default=0) + 1)]
    outside, *parts = (
        shares[..., group, :, :].amax(-3, keepdim=True) if group else torch.zeros_like(score) for group in groups
    )
    if groups[0]:
        best = torch.cat(parts, dim=-3).amax(-3, keepdim=True) if parts else torch.zeros_like(score)
        score = torch.minimum(score, best / (best + outside))
    return torch.cat([score, *parts], dim=-3)
