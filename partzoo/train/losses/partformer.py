"""The losses that train PartFormer."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from math import cos, pi, sin

import torch
from torch import Tensor
from torch.nn.functional import interpolate, l1_loss, nll_loss, normalize

from partzoo.errors import UsageError, counted
from partzoo.system.ranks import mean

SMALLEST = 1e-6  # smallest probability whose logarithm is taken
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)


def perceptual_loss(
    found: Sequence[Tensor], target: Sequence[Tensor], weights: Sequence[float] | None = None
) -> Tensor:
    """Sum the mean absolute differences of feature maps over the layers.

    Args:
        found, target: feature maps of reconstructions and of images, layer by layer.
        weights: one weight for each layer (``VGG_WEIGHTS`` are the published ones); None divides each layer by the mean
            absolute activation of its target, so that all layers of any network count equally.

    Returns:
        A scalar.

    Raises:
        UsageError: the numbers of weights and of layers differ.

    Source: PartFormer, equation 7, with the mean instead of the sum.
    """
    if weights is not None and len(weights) != len(found):
        raise UsageError(
            f"network_weights has {counted(len(weights), 'value')}, and the network has "
            f"{counted(len(found), 'level')}: give one for each, "
            "or none of them."
        )
    layers = [(a.float(), b.float().detach()) for a, b in zip(found, target, strict=True)]
    if weights is None:
        return total(l1_loss(a, b) / mean(b.abs().mean()).clamp(min=1e-8) for a, b in layers)
    return total(weight * l1_loss(a, b) for weight, (a, b) in zip(weights, layers, strict=True))


def total(terms: Iterable[Tensor]) -> Tensor:
    """Add up scalars, one after the other."""
    return functools.reduce(operator.add, terms)


def concentration_loss(maps: Tensor) -> Tensor:
    """Sum the variance of each part's position over the parts, and average over the batch.

    Args:
        maps: ``(B, K, h, w)`` probabilities of the foreground parts.

    Returns:
        A scalar. The unit of length is half the map's side, as in the published code. The paper's is one cell, in
        which a map of ``s x s`` cells has ``(s / 2) ** 2`` times this loss: 256 times for its 32 x 32 cells. The
        weight 0.3 that the paper and the code state is the code's, for this unit.

    Source: PartFormer, equations 4 and 5.
    """
    rows, columns = maps.shape[2:]
    y = torch.arange(rows, device=maps.device, dtype=maps.dtype) * 2 / rows - 1
    x = torch.arange(columns, device=maps.device, dtype=maps.dtype) * 2 / columns - 1
    share = maps / (maps.sum((2, 3), keepdim=True) + 1e-8)
    down, across = share.sum(3), share.sum(2)
    spread = _variance(down, y) + _variance(across, x)
    return spread.sum(1).mean()


def _variance(share: Tensor, place: Tensor) -> Tensor:
    centre = (share * place).sum(-1, keepdim=True)
    return ((place - centre) ** 2 * share).sum(-1)


def area_loss(maps: Tensor, alpha: float) -> Tensor:
    """Penalize small parts: sum ``1 / (1 + area / alpha)`` over the parts, and average over the batch.

    Args:
        maps: ``(B, K, h, w)`` probabilities of the parts that should not vanish.
        alpha: area, in cells, at which a part's term is one half.

    Returns:
        A scalar.

    Source: PartFormer, equation 6.
    """
    area = maps.sum((2, 3)) + 1e-8
    return (1 / (1 + area / alpha)).sum(1).mean()


def consistency_loss(parts: Tensor, prototypes: Tensor, scale: float = 20.0, margin: float = 0.5) -> Tensor:
    """Compute the cross-entropy for matching part representations to one vector per part, with an angular margin.

    Args:
        parts: ``(B, K, D)`` representations of the foreground parts.
        prototypes: ``(K, D)``, or ``(B, K, D)`` if the images are of several classes.
        scale: factor of the cosines.
        margin: angle in radians that is added for the right pairs.

    Returns:
        A scalar, mean over parts and batch.

    Source: PartFormer, equation 8 (ArcFace, Deng et al. 2019; beyond ``pi - margin`` the cosine falls linearly).
    """
    with torch.autocast(parts.device.type, enabled=False):
        cosines = normalize(parts.float(), dim=-1) @ normalize(prototypes.float(), dim=-1).mT
    right = cosines.diagonal(dim1=1, dim2=2)
    # The sine's gradient with respect to the cosine is infinite where the angle is zero.
    sines = (1 - right**2).clamp(1e-12, 1).sqrt()
    beyond = right - margin * sin(pi - margin)
    right = torch.where(right > cos(pi - margin), right * cos(margin) - sines * sin(margin), beyond)
    logits = scale * torch.diagonal_scatter(cosines, right, dim1=1, dim2=2)
    return -logits.log_softmax(-1).diagonal(dim1=1, dim2=2).mean()


def mask_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """Compute the cross-entropy between the foreground's map, the sum of all parts, and a given foreground.

    Args:
        maps: ``(B, K + 1, h, w)`` probabilities, background first.
        masks: ``(B, 1, H, W)`` probabilities of the foreground.

    Returns:
        A scalar, mean over cells and batch, in nats.
    """
    wanted = interpolate(masks.to(maps.dtype), maps.shape[2:], mode="area")[:, 0]
    background = maps[:, 0].clamp(SMALLEST, 1 - SMALLEST)
    return -(wanted * (1 - background).log() + (1 - wanted) * background.log()).mean()


def anchor_loss(maps: Tensor, labels: Tensor) -> Tensor:
    """Compute the cross-entropy between maps ``(B, K + 1, h, w)`` and the part of each cell, ``(B, h, w)`` int64."""
    return nll_loss(maps.clamp(min=SMALLEST).log(), labels)
