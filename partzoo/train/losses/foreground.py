"""The loss that trains a foreground model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, interpolate

LEVEL_WEIGHTS = (1.0, 0.6, 0.4, 0.3, 0.2)  # weights of the logits at strides 2 to 32
EDGE_WEIGHT = 4.0


def structure_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Compute cross-entropy and intersection over union, both with more weight near the outline.

    A pixel's weight is ``1 + 4 |a - t|``, where ``t`` is its target and ``a`` the mean target in a window around it
    whose side is a quarter of the image's.

    Args:
        logits: ``(B, 1, H, W)``.
        target: the same shape, 0..1.

    Returns:
        ``(B,)``: weighted mean cross-entropy plus one minus the weighted soft IoU.

    Source: Wei, Wang and Huang, "F3Net: fusion, feedback and focus for salient object detection", AAAI 2020,
    section 3.4 (pixel position aware loss; there with weight 5 and a fixed window).
    """
    half = logits.shape[-1] // 8
    near = avg_pool2d(target, 2 * half + 1, 1, half, count_include_pad=False)
    weight = 1 + EDGE_WEIGHT * (near - target).abs()
    entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
    over = (1, 2, 3)
    entropy = (weight * entropy).sum(over) / weight.sum(over)
    found = logits.sigmoid()
    shared = (found * target * weight).sum(over)
    union = ((found + target - found * target) * weight).sum(over)
    return entropy + 1 - (shared + 1) / (union + 1)


def pyramid_loss(levels: Sequence[Tensor], target: Tensor, weights: Tensor) -> Tensor:
    """Sum :func:`structure_loss` over the levels of a pyramid.

    Args:
        levels: logits ``(B, 1, h_i, w_i)``, the finest first.
        target: ``(B, 1, H, W)``, 0..1, at the finest level's size.
        weights: ``(B,)``, weight of each image.
    """
    total = torch.zeros((), device=target.device)
    for logits, share in zip(levels, LEVEL_WEIGHTS, strict=True):
        truth = target if logits.shape == target.shape else interpolate(target, logits.shape[-2:], mode="area")
        total = total + share * (structure_loss(logits, truth) * weights).mean()
    return total
