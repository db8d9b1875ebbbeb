"""The objectives of MPAE.

Part maps have the background first, as everywhere in partzoo. Sums over an image's cells that the paper leaves as they
are, are means here, so that a weight serves every size.
"""

from __future__ import annotations

from math import cos, pi, sin

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from partzoo.system.ranks import whole

PRESENT = 1e-3  # a part is in an image when its area in cells is above this


def foreground_loss(maps: Tensor, group: int | None, *, pool: int = 3, every_image: bool = True) -> Tensor:
    """How much is missing for each part to appear in each group of images, and for some part in each image.

    Args:
        maps: ``(B, K, h, w)`` probabilities of the foreground parts.
        group: images in a group; the last one may be smaller. None is the whole batch.
        pool: side of the averages of neighbouring cells that are looked at; 1 is the paper's, 3 the published code's.
        every_image: ask for a part in each image too; without it, and with ``group=None``, this is the presence
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
    """How much is missing for the background to appear near the border of each image.

    Args:
        background: ``(B, h, w)`` its probability.
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
    """Mean feature of each part's region, up to its length, which the cosine of equation 9 does not see.

    Args:
        maps: ``(B, K, h, w)`` probabilities.
        features: ``(B, D, h, w)``.

    Returns:
        ``(B, K, D)``.

    Source: MPAE, equation 8.
    """
    return torch.einsum("bkhw,bdhw->bkd", maps, features) / maps[0, 0].numel()


def present_parts(maps: Tensor) -> Tensor:
    """Which parts are in which images: ``(B, K, h, w)`` probabilities -> ``(B, K)`` bool."""
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
    """Cross-entropy that matches each present part's region with its descriptor, with an angular margin.

    Args:
        regions: ``(B, K, D)`` of :func:`region_features`.
        descriptors: ``(B, K, D)`` of the foreground parts.
        present: ``(B, K)`` bool; absent parts count as zero.
        scale: factor of the cosines.
        margin: added to the angle of the right pairs, in radians.
        over_regions: find the region of each descriptor among the present ones, as in the paper; else the descriptor
            of each region among all, as in the published code.

    Returns:
        A scalar, mean over parts and batch.

    Source: MPAE, equations 7 and 9 (ArcFace, Deng et al. 2019; beyond ``pi - margin`` the cosine falls linearly).
    """
    cosines = normalize(regions, dim=-1, eps=1e-12) @ normalize(descriptors, dim=-1, eps=1e-12).mT
    right = cosines.diagonal(dim1=1, dim2=2)
    # The slope of the sine is infinite where the angle is zero.
    sines = (1 - right**2).clamp(1e-12, 1).sqrt()
    beyond = right - margin * sin(pi - margin)
    right = torch.where(right > cos(pi - margin), right * cos(margin) - sines * sin(margin), beyond)
    logits = scale * torch.diagonal_scatter(cosines, right, dim1=1, dim2=2)
    if over_regions:
        logits = logits.mT.masked_fill(~present[:, None, :], -1e4)
    losses = -logits.log_softmax(-1).diagonal(dim1=1, dim2=2)
    return torch.where(present, losses, 0).mean()


def variation_loss(maps: Tensor) -> Tensor:
    """Differences of neighbouring cells, added over the parts, mean over cells and batch.

    Args:
        maps: ``(B, K + 1, h, w)`` probabilities, background included.

    Returns:
        A scalar.

    Source: MPAE, equation 10 (anisotropic total variation).
    """
    down, across = maps.diff(dim=2).abs().sum(), maps.diff(dim=3).abs().sum()
    return (down + across) / maps[:, 0].numel()


def entropy_loss(maps: Tensor) -> Tensor:
    """Entropy of the parts at a cell, mean over cells and batch.

    Args:
        maps: ``(B, K + 1, h, w)`` probabilities, background included.

    Returns:
        A scalar, in nats.

    Source: MPAE, equation 11, times (K + 1) / cells.
    """
    smallest = torch.finfo(torch.float32).eps
    return -(maps * maps.clamp(smallest, 1 - smallest).log()).sum(1).mean()
