"""The losses that train MPAE.

Part maps have the background first, as everywhere in partzoo. Where the paper sums over an image's cells, these
functions take the mean, so that a weight works for every size.
"""

from __future__ import annotations

from math import cos, pi, sin

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from partzoo.system.ranks import whole

PRESENT = 1e-3  # smallest area, in cells, of a part that counts as present in an image


def foreground_loss(maps: Tensor, group: int | None, *, pool: int = 3, every_image: bool = True) -> Tensor:
    """Penalize parts that do not appear in a group of images, and images in which no part appears.

    Args:
        maps: ``(B, K, h, w)`` probabilities of the foreground parts.
        group: number of images in a group; the last group may be smaller. None makes the whole batch one group.
        pool: side of the neighbourhoods over which maps are averaged first: 1 in the paper, 3 in the published code.
        every_image: whether to require a part in each image too; if not, and with ``group=None``, this is the presence
            loss of PDiscoFormer (Aniraj et al., ECCV 2024).

    Returns:
        A scalar, mean over the groups.

    Source: MPAE, equation 4.
    """
    peaks = whole(avg_pool2d(maps, pool, stride=1).amax((2, 3)))
    terms = []
    for chunk in peaks.split(group or len(peaks)):
        absent = 1 - chunk.amax(0).mean()
        terms.append(absent + 1 - chunk.amax(1).mean() if every_image else absent)
    return torch.stack(terms).mean()


def background_loss(background: Tensor, *, pool: int = 3) -> Tensor:
    """Penalize images in which the background does not appear near the border.

    Args:
        background: ``(B, h, w)`` probability of the background.
        pool: as in :func:`foreground_loss`.

    Returns:
        A scalar, mean over the batch.

    Source: MPAE, equations 5 and 6.
    """
    near = avg_pool2d(background[:, None], pool, stride=1)[:, 0]
    down, across = (torch.linspace(-1, 1, side, dtype=near.dtype, device=near.device) for side in near.shape[1:])
    distance = (down[:, None] ** 2 + across**2) / 2
    return -(distance * near).amax((1, 2)).clamp(min=torch.finfo(near.dtype).tiny).log().mean()


def region_features(maps: Tensor, features: Tensor) -> Tensor:
    """Compute each part region's mean feature, up to a positive factor, which does not affect the cosine of equation 9.

    Args:
        maps: ``(B, K, h, w)`` probabilities.
        features: ``(B, D, h, w)``.

    Returns:
        ``(B, K, D)``.

    Source: MPAE, equation 8.
    """
    return torch.einsum("bkhw,bdhw->bkd", maps, features) / maps[0, 0].numel()


def present_parts(maps: Tensor) -> Tensor:
    """Return which parts are present in which images: ``(B, K)`` bool from ``(B, K, h, w)`` probabilities."""
    return maps.detach().sum((2, 3)) > PRESENT


def semantic_loss(
    regions: Tensor,
    descriptors: Tensor,
    present: Tensor,
    *,
    scale: float = 20.0,
    margin: float = 0.5,
    over_regions: bool = False,
) -> Tensor:
    """Compute the cross-entropy for matching each present part's region to its descriptor, with an angular margin.

    Args:
        regions: ``(B, K, D)``, as computed by :func:`region_features`.
        descriptors: ``(B, K, D)`` of the foreground parts.
        present: ``(B, K)`` bool; absent parts count as zero.
        scale: factor of the cosines.
        margin: angle in radians that is added for the right pairs.
        over_regions: whether to find each descriptor's region among the present ones, as in the paper; otherwise each
            region's descriptor is found among all, as in the published code.

    Returns:
        A scalar, mean over parts and batch.

    Source: MPAE, equations 7 and 9 (ArcFace, Deng et al. 2019; beyond ``pi - margin`` the cosine falls linearly).
    """
    cosines = normalize(regions, dim=-1, eps=1e-12) @ normalize(descriptors, dim=-1, eps=1e-12).mT
    right = cosines.diagonal(dim1=1, dim2=2)
    # The sine's gradient with respect to the cosine is infinite where the angle is zero.
    sines = (1 - right**2).clamp(1e-12, 1).sqrt()
    beyond = right - margin * sin(pi - margin)
    right = torch.where(right > cos(pi - margin), right * cos(margin) - sines * sin(margin), beyond)
    logits = scale * torch.diagonal_scatter(cosines, right, dim1=1, dim2=2)
    if over_regions:
        logits = logits.mT.masked_fill(~present[:, None, :], -1e4)
    losses = -logits.log_softmax(-1).diagonal(dim1=1, dim2=2)
    return torch.where(present, losses, 0).mean()


def variation_loss(maps: Tensor) -> Tensor:
    """Sum the differences between neighbouring cells over the parts, and average over cells and batch.

    Args:
        maps: ``(B, K + 1, h, w)`` probabilities, background included.

    Returns:
        A scalar.

    Source: MPAE, equation 10 (anisotropic total variation).
    """
    down, across = maps.diff(dim=2).abs().sum(), maps.diff(dim=3).abs().sum()
    return (down + across) / maps[:, 0].numel()


def entropy_loss(maps: Tensor) -> Tensor:
    """Compute the entropy of the parts at a cell, averaged over cells and batch.

    Args:
        maps: ``(B, K + 1, h, w)`` probabilities, background included.

    Returns:
        A scalar, in nats.

    Source: MPAE, equation 11, times (K + 1) / cells.
    """
    smallest = torch.finfo(torch.float32).eps
    return -(maps * maps.clamp(smallest, 1 - smallest).log()).sum(1).mean()
