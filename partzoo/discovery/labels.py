"""Maps of parts -> labels, and the order in which parts are numbered."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def argmax(maps: Tensor) -> np.ndarray:
    """Arg-max over ``(K, h, w)`` maps, the first of equals: ``(h, w)``. Several times faster than Tensor.argmax."""
    best, winner = maps[0].clone(), np.zeros(maps.shape[1:], np.uint16)
    for number, each in enumerate(maps[1:], 1):
        winner[(each > best).numpy()] = number
        torch.maximum(best, each, out=best)
    return winner


def argmax_inside(maps: Tensor) -> np.ndarray:
    """Labels from the foreground's score and the parts' shares of it: background below 0.5, whatever the shares."""
    if len(maps) == 1:
        return np.zeros(maps.shape[1:], np.uint16)
    return np.where((maps[0] >= 0.5).numpy(), argmax(maps[1:]) + 1, 0)


def contest(maps: Tensor) -> Tensor:
    """Scores, background first, whose arg-max is what :func:`argmax_inside` gives."""
    score, shares = maps[:1], maps[1:]
    if not len(shares):
        return torch.ones_like(score)
    return torch.cat([1 - score, score * shares / shares.amax(0).clamp(min=1e-6)])


def by_area(labels: np.ndarray, k: int) -> np.ndarray:
    """Numbers 0..k-1 in the order of how often they occur, most often first, ties by first occurrence."""
    counts = np.bincount(labels, minlength=k)
    first = np.full(k, len(labels))
    present, where = np.unique(labels, return_index=True)
    first[present] = where
    return np.lexsort((first, -counts))
