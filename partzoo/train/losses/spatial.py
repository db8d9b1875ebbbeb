"""Pairs, targets and objective of Spatial Reasoning.

A step's features are stacked group by group: view 0 of all M pictures, view 1, ..., view K - 1, then patch 0 of all
pictures, ..., patch N - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss


@dataclass(frozen=True)
class Pairs:
    """Which rows of a stack of features are related.

    Attributes:
        first, second: ``(P,)`` int64, rows.
        different: ``(P,)`` float32, 1 where they are of different pictures, else 0.
        views: so many rows, the first ones, are of views; the others are of patches.
    """

    first: Tensor
    second: Tensor
    different: Tensor
    views: int


@cache
def shifted_pairs(
    pictures: int, views: int, patches: int, patch_negatives: bool = False, device: str | torch.device = "cpu"
) -> Pairs:
    """Pairs of a step, by shifting.

    For each two groups a < b: every picture's pair, then, as negatives, a against b shifted by so many pictures. The
    shift grows by one with each two groups and never is a multiple of M (but for M = 1, whose negatives are positives).

    Args:
        pictures, views, patches: M, K and N.
        patch_negatives: shift patches too, as the published code does; the paper does not.
        device: where the pairs are.

    Source: section 3.2, equation 2: M (K^2 - K) pairs of views, M (N^2 - N) / 2 of patches.
    """
    with torch.inference_mode(False):  # what is remembered here serves training too
        return _shifted_pairs(pictures, views, patches, patch_negatives, device)


def _shifted_pairs(
    pictures: int, views: int, patches: int, patch_negatives: bool, device: str | torch.device
) -> Pairs:
    own = torch.arange(pictures)
    first, second, different = [], [], []
    for start, groups, negatives in ((0, views, True), (views, patches, patch_negatives)):
        shift = 1
        for a, b in combinations(range(start, start + groups), 2):
            first.append(a * pictures + own)
            second.append(b * pictures + own)
            different.append(torch.zeros(pictures))
            if negatives:
                first.append(a * pictures + own)
                second.append(b * pictures + (own - shift) % pictures)
                different.append(torch.ones(pictures))
                shift = shift % max(pictures - 1, 1) + 1
    joined = (torch.cat(rows).to(device) for rows in (first, second, different))
    return Pairs(*joined, views=views * pictures)


def relation_targets(pairs: Pairs, positions: Tensor, *, signed: bool = True) -> Tensor:
    """What the relation module should say of pairs.

    Args:
        pairs: of a step.
        positions: ``(N * M, 2)`` top and left of the patches, in their order in the stack.
        signed: differences as they are; without, how large they are, which is all that a relation module can learn
            which does not tell the first of two features from the second.

    Returns:
        ``(P, 3)`` float32: the difference of positions, and 1 for different pictures. Pairs of views, and patches of
        different pictures, have the last for the first two.

    Source: section 3.2, "pseudo targets".
    """
    placed = torch.cat([positions.new_zeros(pairs.views, 2), positions])
    apart = (placed[pairs.first] - placed[pairs.second]).float()
    apart = apart if signed else apart.abs()
    different = pairs.different[:, None]
    return torch.cat([torch.where(different > 0, different, apart), different], dim=1)


def relation_loss(predicted: Tensor, targets: Tensor, alpha: float = 2.0, focus: float = 0.0) -> dict[str, Tensor]:
    """Cross-entropy of the logit plus ``alpha`` times the mean squared error of both positions.

    Args:
        predicted, targets: ``(P, 3)``, positions and then the logit or class.
        alpha: 2 is the paper's sum of two errors, 1 the published code's.
        focus: gamma of the focal loss: a pair counts half the wrong class's probability to this power. 0 is the plain
            cross-entropy.

    Returns:
        Scalars ``"loss"``, ``"same"`` and ``"position"``, before ``alpha``.

    Source: equation 3; for the focal loss Patacchiola and Storkey, "Self-supervised relational reasoning for
    representation learning" (2020), whose gamma is 2.
    """
    predicted = predicted.float()
    logit, target = predicted[:, 2], targets[:, 2]
    same = binary_cross_entropy_with_logits(logit, target, reduction="none")
    if focus:
        same = 0.5 * (1 - (-same).exp()) ** focus * same
    same = same.mean()
    position = mse_loss(predicted[:, :2], targets[:, :2])
    return {"loss": same + alpha * position, "same": same, "position": position}
