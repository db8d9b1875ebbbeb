"""Spherical k-means, which clusters vectors by their directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from partzoo.errors import ShapeError, UsageError

SMALL = 0.25  # share of the mean group size below which a group is a mixture rather than a part
MOST, APART = 12, 0.6  # for k="auto": most clusters, and the cost of a merge from which two groups look different
MORE = 2  # number of groups before merging, for each one that is asked for
RESTARTS, ITERATIONS, TOLERANCE = 3, 50, 3e-4  # of spherical_kmeans
CHUNK = 65_536  # points compared with the centres at once, so that memory stays bounded


@dataclass(frozen=True)
class Clusters:
    """Result of :func:`spherical_kmeans`.

    Attributes:
        centres: ``(K, D)``, unit length; K is smaller than requested if there are fewer distinct points.
        labels: ``(N,)`` int64, the nearest centre of each point.
        similarity: mean cosine between points and their centres.
    """

    centres: Tensor
    labels: Tensor
    similarity: float


def spherical_kmeans(
    points: Tensor,
    k: int,
    *,
    seed: int = 0,
    restarts: int = RESTARTS,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> Clusters:
    """Cluster vectors by cosine similarity, with k-means++ starts.

    All restarts run as one batch on the points' device. Random numbers are drawn on the CPU, so that the starts are
    the same on every device. A cluster that loses its points is dropped.

    Args:
        points: ``(N, D)``, any length; they are normalized.
        k: largest number of clusters, at least 1.
        seed: random seed of the starts.
        restarts: number of starts; the one with the highest similarity wins, or the first of equal ones.
        iterations: largest number of rounds of assigning and averaging.
        tolerance: smallest rise of a restart's mean similarity that continues the iteration.

    Returns:
        Centres, labels and mean similarity.

    Raises:
        ShapeError: the points are not a matrix with at least one row.
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
    """Cluster vectors by cosine similarity into twice as many groups as requested, then merge the most similar ones.

    k-means alone spends clusters on dividing large, uniform regions. Merging by Ward's criterion, in which each small
    group counts as much as a large one, keeps apart what looks different. Groups below a quarter of the mean size
    are mostly mixtures along outlines, so each joins the group most similar to it.

    Args:
        points: ``(N, D)``, any length; they are normalized.
        k: largest number of clusters, at least 1; ``"auto"`` merges to at most 12, and further until the next two
            groups look different.
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
    # Merging looks at the centres alone, not at their counts, so that a small but distinct part is not merged away.
    groups = [large[group].tolist() for group in ward(fine.centres[large], most, APART if k == "auto" else 0.0)]
    nearest = (fine.centres @ fine.centres[large].T).argmax(1)
    # Small groups join only now: as mixtures of two parts, they would have pulled those parts together in the merging.
    for crumb in (~is_large).nonzero()[:, 0].tolist():
        next(group for group in groups if int(large[nearest[crumb]]) in group).append(crumb)
    sums = torch.stack([(fine.centres[group] * counts[group, None]).sum(0) for group in groups])
    centres = normalize(sums, dim=1)
    labels = assign(points, centres)
    used, labels = labels.unique(return_inverse=True)
    _, similarity, _ = _average(normalize(points.float(), dim=1), centres[None])
    return Clusters(centres[used], labels, float(similarity))


def ward(points: Tensor, k: int, apart: float = 0.0) -> list[list[int]]:
    """Merge points ``(N, D)`` pairwise, at each step the pair that adds least to the sum of squares within groups.

    Merging continues until k groups are left, and then for as long as a merge adds less than ``apart``.
    """
    groups = [[i] for i in range(len(points))]
    means = [point.double() for point in points]
    while len(groups) > 1:
        sizes = torch.tensor([len(group) for group in groups], dtype=torch.float64)
        # What each merge would add to the sum of squares within groups.
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
        ``(N,)`` int64, values 0..K-1; the lowest number if several centres are equally similar.

    Raises:
        ShapeError: points and centres differ in their last dimension.
    """
    if points.shape[-1] != centres.shape[-1]:
        raise ShapeError(f"The points have {points.shape[-1]} channels and the centres {centres.shape[-1]}.")
    return torch.cat([(chunk @ centres.T).argmax(1) for chunk in points.split(CHUNK)])


def _starts(points: Tensor, k: int, restarts: int, generator: torch.Generator) -> Tensor:
    """Draw k-means++ centres ``(R, k, D)``, each with probability proportional to its distance from those before."""
    draws = torch.rand(k, restarts, generator=generator).to(points)
    chosen = [(draws[0] * len(points)).long().clamp_(max=len(points) - 1)]
    distance = points.new_full((restarts, len(points)), torch.inf)
    for draw in draws[1:]:
        distance = torch.minimum(distance, (1 - points[chosen[-1]] @ points.T).clamp_(min=0))
        distance[distance < 1e-6] = 0  # a duplicate of a chosen point, up to rounding
        total = distance.double().cumsum(1)
        chosen.append(
            torch.searchsorted(total, draw[:, None].double() * total[:, -1:], right=True)
            .squeeze(1)
            .clamp_(max=len(points) - 1)
        )
    return points[torch.stack(chosen, 1)]


def _average(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, per restart, the sums of each centre's points ``(R, k, D)``, the mean similarity and the counts."""
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
