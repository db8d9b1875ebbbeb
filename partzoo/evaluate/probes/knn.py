"""Classify frozen features by their nearest neighbours, without any training."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from partzoo.errors import ShapeError, UsageError


@torch.inference_mode()
def knn_classify(
    features: Tensor,
    train_features: Tensor,
    train_labels: Tensor,
    *,
    neighbours: int = 20,
    vote: Literal["weighted", "plain"] = "weighted",
    temperature: float = 0.07,
    batch_size: int = 256,
) -> Tensor:
    """Classify each image by its nearest training images.

    Neighbours are nearest by cosine. ``"weighted"`` votes count ``exp(cosine / temperature)``, as in Wu et al.,
    "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018, section 3.4; ``"plain"``
    votes count 1. Ties go to the lower class.

    Args:
        features: ``(M, C)`` pooled features, of any length.
        train_features: ``(N, C)``.
        train_labels: ``(N,)`` int64, values from 0.
        neighbours: number of neighbours that vote; at most N.
        vote: weighting of the votes.
        temperature: temperature of the weighted vote.
        batch_size: number of images in a batch; the result does not depend on it.

    Returns:
        ``(M,)`` int64.

    Raises:
        ShapeError: the shapes do not agree.
        UsageError: ``neighbours`` or ``vote`` is out of range.
    """
    if features.ndim != 2 or features.shape[1:] != train_features.shape[1:] or len(train_features) != len(train_labels):
        raise ShapeError(
            f"Features {tuple(features.shape)}, training features {tuple(train_features.shape)} "
            f"and labels {tuple(train_labels.shape)} do not agree."
        )
    if not 1 <= neighbours <= len(train_features):
        raise UsageError(
            f"neighbours={neighbours}, but there are {len(train_features)} training images. Use 1 to that many."
        )
    if vote not in ("weighted", "plain"):
        raise UsageError(f"vote={vote!r}, but it must be 'weighted' or 'plain'.")
    bank, labels = normalize(train_features.float(), dim=1), train_labels.long()
    classes = int(labels.max()) + 1
    found = []
    for batch in features.split(batch_size):
        cosine, nearest = (normalize(batch.float(), dim=1) @ bank.T).topk(neighbours, dim=1)
        # Only differences matter; subtracting 1 keeps the exponentials in range.
        weight = ((cosine - 1) / temperature).exp() if vote == "weighted" else torch.ones_like(cosine)
        votes = torch.zeros(len(batch), classes, dtype=torch.float64, device=batch.device)
        found.append(votes.scatter_add_(1, labels[nearest], weight.double()).argmax(1))
    return torch.cat(found) if found else labels.new_empty(0)


def knn_accuracy(features: Tensor, labels: Tensor, train_features: Tensor, train_labels: Tensor, **options) -> float:
    """Compute the share of images, in per cent, that :func:`knn_classify` assigns to their class in ``labels`` (M,)."""
    found = knn_classify(features, train_features, train_labels, **options)
    return 100 * (found == labels).double().mean().item()
