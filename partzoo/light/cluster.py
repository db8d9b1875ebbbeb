"""The clustering of :mod:`partzoo.discovery.cluster` in NumPy, which needs no torch; its results are the same.

Products round differently, so centres may differ in their last digits.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from partzoo.light.draws import uniform

# As in partzoo.discovery.cluster, where they are explained.
SMALL, MOST, APART, MORE = 0.25, 12, 0.6, 2
RESTARTS, ITERATIONS, TOLERANCE = 3, 50, 3e-4


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors ``(..., D)`` to unit length; those of length 0 stay."""
    return vectors / np.maximum(np.sqrt(np.square(vectors).sum(-1, keepdims=True)), 1e-12)


def merged_kmeans(points: np.ndarray, k: int | Literal["auto"], *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cluster unit vectors as :func:`partzoo.discovery.cluster.merged_kmeans`.

    Args:
        points: ``(N, D)`` float32, of unit length, at least one.
        k: largest number of clusters, or ``"auto"``.
        seed: random seed of the starts.

    Returns:
        Centres ``(K, D)`` of unit length, and the number of the nearest one of each point, ``(N,)``.
    """
    points = normalized(points)
    most = MOST if k == "auto" else k
    fine, labels = spherical_kmeans(points, most if most <= 1 else MORE * most, seed=seed)
    counts = np.bincount(labels, minlength=len(fine)).astype(np.float32)
    is_large = counts >= np.float32(SMALL) * counts.mean()
    large = np.flatnonzero(is_large)
    groups = [large[group].tolist() for group in ward(fine[large], most, APART if k == "auto" else 0.0)]
    nearest = large[(fine @ fine[large].T).argmax(1)]
    for crumb in np.flatnonzero(~is_large).tolist():
        next(group for group in groups if nearest[crumb] in group).append(crumb)
    centres = normalized(np.stack([(fine[group] * counts[group, None]).sum(0) for group in groups]))
    return _used(points, centres)


def spherical_kmeans(points: np.ndarray, k: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cluster unit vectors ``(N, D)`` as :func:`partzoo.discovery.cluster.spherical_kmeans`, into at most k groups."""
    centres = _starts(points, k, uniform(seed, k, RESTARTS))
    best = np.full(RESTARTS, -2, np.float32)
    for _ in range(ITERATIONS):
        sums, similarity, counts = _average(points, centres)
        centres = np.where(counts[..., None] > 0, normalized(sums), centres)
        rise, best = (similarity - best).max(), np.maximum(best, similarity)
        if rise <= TOLERANCE:
            break
    return _used(points, centres[_average(points, centres)[1].argmax()])


def ward(points: np.ndarray, k: int, apart: float = 0.0) -> list[list[int]]:
    """Merge points ``(N, D)`` pairwise as :func:`partzoo.discovery.cluster.ward`."""
    groups = [[i] for i in range(len(points))]
    means = points.astype(np.float64)
    while len(groups) > 1:
        sizes = np.array([len(group) for group in groups], np.float64)
        distances = np.square(means[:, None] - means).sum(-1)
        cost = distances * (sizes[:, None] * sizes / (sizes[:, None] + sizes))
        np.fill_diagonal(cost, np.inf)
        if len(groups) <= k and cost.min() >= apart:
            break
        a, b = sorted(divmod(int(cost.argmin()), len(groups)))
        means[a] = (sizes[a] * means[a] + sizes[b] * means[b]) / (sizes[a] + sizes[b])
        groups[a] += groups.pop(b)
        means = np.delete(means, b, axis=0)
    return groups


def _used(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres that are the nearest of a point, and the nearest of each point."""
    labels = (points @ centres.T).argmax(1)
    is_used = np.bincount(labels, minlength=len(centres)) > 0
    return centres[is_used], (is_used.cumsum() - 1)[labels]


def _starts(points: np.ndarray, k: int, draws: np.ndarray) -> np.ndarray:
    """Return k-means++ centres ``(R, k, D)`` for draws ``(k, R)``."""
    last = len(points) - 1
    chosen = [np.minimum((draws[0] * len(points)).astype(np.int64), last)]
    distance = np.full((draws.shape[1], len(points)), np.inf, np.float32)
    for draw in draws[1:]:
        distance = np.minimum(distance, (1 - points[chosen[-1]] @ points.T).clip(min=0))
        distance[distance < 1e-6] = 0  # a duplicate of a chosen point, up to rounding
        total = distance.cumsum(1, dtype=np.float64)
        sought = draw.astype(np.float64) * total[:, -1]
        pairs = zip(total, sought, strict=True)
        chosen.append(np.array([min(int(np.searchsorted(row, value, "right")), last) for row, value in pairs]))
    return points[np.stack(chosen, 1)]


def _average(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, per restart, the sums of each centre's points ``(R, k, D)``, the mean similarity and the counts."""
    restarts, k, width = centres.shape
    cosines = (centres.reshape(-1, width) @ points.T).reshape(restarts, k, -1)
    labels = cosines.argmax(1)
    one_hot = (labels[:, None] == np.arange(k)[:, None]).astype(np.float32)
    sums = (one_hot.reshape(restarts * k, -1) @ points).reshape(centres.shape)
    return sums, cosines.max(1).sum(1) / np.float32(len(points)), one_hot.sum(2)
