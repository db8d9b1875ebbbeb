"""Convert part maps to labels."""

from __future__ import annotations

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
