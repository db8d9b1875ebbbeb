"""Measure the errors of PART's predicted translations between patches, and whether they are antisymmetric."""

from __future__ import annotations

import torch
from torch import Tensor

from partzoo.errors import ShapeError


def position_error(predicted: Tensor, true: Tensor) -> dict[str, float]:
    """Compute the errors of PART's translations and of a constant predictor, in patches.

    The constant predictor returns 0, about which translations of unordered pairs are symmetric. For uniform
    positions in an image of 8 x 8 patches its mean squared error is 49/6 = 8.17 per axis. Every value is a
    mean over pairs, so results of equally large batches may be averaged.

    Args:
        predicted: ``(..., 2)`` or ``(..., 4)`` translations x, y (and relative sizes, which are left out).
        true: the same shape.

    Returns:
        ``mse_x``, ``mse_y``, ``distance`` (mean Euclidean), and the same for the constant predictor, with the prefix
        ``constant_``.

    Raises:
        ShapeError: the shapes differ, or hold no pairs.

    Source: PART, table 5.
    """
    if predicted.shape != true.shape or true.ndim < 1 or true.shape[-1] not in (2, 4) or not true.numel():
        raise ShapeError(f"Translations must be two equal (..., 2), not {tuple(predicted.shape)}, {tuple(true.shape)}.")
    predicted, true = predicted[..., :2].double(), true[..., :2].double()
    errors: dict[str, float] = {}
    for prefix, difference in (("", predicted - true), ("constant_", -true)):
        x, y = difference.square().reshape(-1, 2).mean(0).tolist()
        errors |= {f"{prefix}mse_x": x, f"{prefix}mse_y": y}
        errors[f"{prefix}distance"] = difference.norm(dim=-1).mean().item()
    return errors


def antisymmetry(predicted: Tensor, back: Tensor | None = None) -> float:
    """Compute the mean length of ``t_ij + t_ji`` over all pairs of different patches, in patches: 0 if they agree.

    Args:
        predicted: ``(..., N, N, 2)`` or ``(..., N, N, 4)`` translations from patch i to patch j, N > 1.
        back: translations to use for t_ji, of the same shape; None uses ``predicted``. The matrices of
            unrelated patches give the value for unrelated translations in both directions.

    Raises:
        ShapeError: the inputs are not square matrices of translations of at least two patches.

    Source: PART, section 5.1 and figure 6.
    """
    back = predicted if back is None else back
    shape = predicted.shape
    if len(shape) < 3 or shape[-3] != shape[-2] or shape[-3] < 2 or shape[-1] not in (2, 4) or back.shape != shape:
        raise ShapeError(f"Translations must be (..., N, N, 2), N > 1, not {tuple(shape)}, {tuple(back.shape)}.")
    length = (predicted[..., :2].double() + back[..., :2].double().transpose(-2, -3)).norm(dim=-1)
    pairs = ~torch.eye(shape[-3], dtype=torch.bool, device=predicted.device)
    return length[..., pairs].mean().item()
