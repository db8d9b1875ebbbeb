"""Spherical k-means: groups of directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from partzoo.errors import ShapeError, UsageError

SMALL = 0.25  # of the mean size of groups, below which one is a mixture rather than a part
MOST, APART = 12, 0.6  # for k="auto": clusters at most, and what a merge adds to the sum of squares of unlike groups
MORE = 2  # groups for each that is asked for, before they are merged
CHUNK = 65_536  # points compared with the centres at once, so that memory stays bounded


@dataclass(frozen=True)
class Clusters:
    """Result of :func:`spherical_kmeans`.

    Attributes:
        centres: ``(K, D)``, unit length; K may be smaller than asked, where there are fewer distinct points.
        labels: ``(N,)`` int64, the nearest centre of each point.
        similarity: mean cosine between points and their centres.
    """

    centres: Tensor
    labels: Tensor
    similarity: float


def spherical_kmeans(
    points: Tensor, k: int, *, seed: int = 0, restarts: int = 3, iterations: int = 50, tolerance: float = 3e-4
) -> Clusters:
    """Cluster directions by cosine, with k-means++ starts.

    All restarts run as one batch on the points' device. Random numbers are drawn on the CPU, so that the starts are
    the same on every device. A cluster that loses its points is dropped.

    Args:
        points: ``(N, D)``, any length; they are normalized.
        k: most clusters, at least 1.
        seed: of the starts.
        restarts: how many starts; the one with the highest similarity wins, the first of equals.
        iterations: most rounds of assigning and averaging.
        tolerance: stop when no restart's mean similarity rises by more.

    Returns:
        Centres, labels and mean similarity.

    Raises:
        ShapeError: the points are not a non-empty matrix.
        UsageError: k or restarts is below 1.

    Source: Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", Machine
    Learning 2001; starts from Arthur and Vassilvitskii, "k-means++", SODA 2007.
    """
    if points.ndim != 2 or not len(points):
        raise ShapeError(f"The points must be (N, D) with at least one row, not {tuple(points.shape)}.")
    if k < 1 or restarts < 1:
        raise UsageError(f"k={k} and restarts={restarts} must be at least 1.")
    points = normalize(points.float(), dim=1)
    centres = _starts(points, k, restarts, torch.Generator().manual_seed(seed))
    best = centres.new_full((restarts,), -2.0)
    for _ in range(iterations):
        sums, similarity, counts = _average(points, centres)
        centres = torch.where(counts[..., None] > 0, normalize(sums, dim=2), centres)
        rise, best = (similarity - best).max(), torch.maximum(best, similarity)
        if rise <= tolerance:
            break
    _, similarity, _ = _average(points, centres)
    chosen = centres[int(similarity.argmax())]
    labels = assign(points, chosen)
    used, labels = labels.unique(return_inverse=True)
    return Clusters(chosen[used], labels, float(similarity.max()))


def merged_kmeans(points: Tensor, k: int | Literal["auto"], *, seed: int = 0) -> Clusters:
    """Cluster directions into twice as many groups as asked for, then merge the most similar ones.

    k-means alone spends clusters on dividing what is large and even; merged by Ward's criterion, each small group
    counting as much as a large one, what looks different stays apart. Groups with less than a quarter of the mean size
    are mostly mixtures along outlines and join the one most like them.

    Args:
        points: ``(N, D)``, any length; they are normalized.
        k: most clusters, at least 1; ``"auto"``: at most 12, merged on until the next two look different.
        seed: random seed of the starts.

    Returns:
        Centres, labels and mean similarity, as :func:`spherical_kmeans`.

    Raises:
        ShapeError, UsageError: as :func:`spherical_kmeans`.

    Source: Ward, "Hierarchical grouping to optimize an objective function", JASA 1963, over the centres.
    """
    most = MOST if k == "auto" else k
    fine = spherical_kmeans(points, most if most <= 1 else MORE * most, seed=seed)
    counts = torch.bincount(fine.labels, minlength=len(fine.centres)).to(fine.centres)
    is_large = counts >= SMALL * counts.mean()
    large = is_large.nonzero()[:, 0]
    groups = [large[group].tolist() for group in ward(fine.centres[large], most, APART if k == "auto" else 0.0)]
    nearest = (fine.centres @ fine.centres[large].T).argmax(1)
    for crumb in (~is_large).nonzero()[:, 0].tolist():
        next(group for group in groups if int(large[nearest[crumb]]) in group).append(crumb)
    sums = torch.stack([(fine.centres[group] * counts[group, None]).sum(0) for group in groups])
    centres = normalize(sums, dim=1)
    labels = assign(points, centres)
    used, labels = labels.unique(return_inverse=True)
    _, similarity, _ = _average(normalize(points.float(), dim=1), centres[None])
    return Clusters(centres[used], labels, float(similarity))


def ward(points: Tensor, k: int, apart: float = 0.0) -> list[list[int]]:
    """Merge points ``(N, D)`` two by two, those whose union adds least to the sum of squares within groups.

    It goes on until k groups are left, and then while a merge adds less than ``apart``.
    """
    groups = [[i] for i in range(len(points))]
    means = [point.double() for point in points]
    while len(groups) > 1:
        sizes = torch.tensor([len(group) for group in groups], dtype=torch.float64)
        cost = torch.cdist(torch.stack(means), torch.stack(means)).square() * (
            sizes[:, None] * sizes / (sizes[:, None] + sizes)
        )
        cost.fill_diagonal_(torch.inf)
        if len(groups) <= k and cost.min() >= apart:
            break
        a, b = sorted(divmod(int(cost.argmin()), len(groups)))
        means[a] = (sizes[a] * means[a] + sizes[b] * means[b]) / (sizes[a] + sizes[b])
        groups[a] += groups.pop(b)
        means.pop(b)
    return groups


def assign(points: Tensor, centres: Tensor) -> Tensor:
    """Give each point the number of its most similar centre.

    Args:
        points: ``(N, D)``, any length.
        centres: ``(K, D)``, unit length.

    Returns:
        ``(N,)`` int64, values 0..K-1; the lower number of equals.

    Raises:
        ShapeError: the last sizes differ.
    """
    if points.shape[-1] != centres.shape[-1]:
        raise ShapeError(f"The points have {points.shape[-1]} channels and the centres {centres.shape[-1]}.")
    return torch.cat([(chunk @ centres.T).argmax(1) for chunk in points.split(CHUNK)])


def _starts(points: Tensor, k: int, restarts: int, generator: torch.Generator) -> Tensor:
    """k-means++ centres ``(R, k, D)``: each next one drawn in proportion to its distance from the ones before."""
    draws = torch.rand(k, restarts, generator=generator).to(points)
    chosen = [(draws[0] * len(points)).long().clamp_(max=len(points) - 1)]
    distance = points.new_full((restarts, len(points)), torch.inf)
    for draw in draws[1:]:
        distance = torch.minimum(distance, (1 - points[chosen[-1]] @ points.T).clamp_(min=0))
        distance[distance < 1e-6] = 0  # the same point again, up to rounding
        total = distance.double().cumsum(1)
        chosen.append(
            torch.searchsorted(total, draw[:, None].double() * total[:, -1:], right=True)
            .squeeze(1)
            .clamp_(max=len(points) - 1)
        )
    return points[torch.stack(chosen, 1)]


def _average(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per restart: the sums of each centre's points ``(R, k, D)``, the mean similarity ``(R,)``, counts ``(R, k)``."""
    restarts, k, _ = centres.shape
    sums, counts = torch.zeros_like(centres), centres.new_zeros(restarts, k)
    similarity = centres.new_zeros(restarts)
    for chunk in points.split(CHUNK):
        best, labels = (centres.flatten(0, 1) @ chunk.T).unflatten(0, (restarts, k)).max(1)
        one_hot = torch.zeros(restarts, k, len(chunk), device=points.device).scatter_(1, labels[:, None], 1)
        sums += (one_hot.flatten(0, 1) @ chunk).view_as(sums)
        counts += one_hot.sum(2)
        similarity += best.sum(1) / len(points)
    return sums, similarity, counts
