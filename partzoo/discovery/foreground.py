"""Methods that find the foreground by scoring each cell of an image's grid; 0.5 or more means foreground.

To add a method, write a function here under :func:`method`; no other file changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIGMA = 10.0  # CIELAB distance at which two colours are one sigma apart (Zhu et al.)
REGIONS, ROUNDS, COMPACTNESS = 200, 3, 10.0  # number of superpixels; SLIC's iterations and weight of position
REACH = 0.4  # range of the contrast between regions, as a share of the image's longer side (Zhu et al.)
SMOOTHNESS = 0.1  # smallest link between neighbouring regions (Zhu et al.)
THIN = 0.75  # factor of Otsu's threshold, which alone would cut off legs, wheels and dark heads
CRUMB = 0.15  # share of the largest connected piece's area below which a piece is not part of the foreground
TAU = 0.2  # cosine from which cells are linked in the normalized cut (TokenCut)


@dataclass(frozen=True, eq=False)
class Cells:
    """An image on its grid of cells, without its frame.

    Attributes:
        lab: ``(h, w, 3)`` float32, mean CIELAB colour of each cell, L 0..100.
        features: ``(h, w, C)`` float32 features of the encoder, centred, or None.
        objectness: ``(h, w)`` probabilities of an object, from an encoder with an objectness head, or None.
    """

    lab: np.ndarray
    features: np.ndarray | None = None
    objectness: np.ndarray | None = None


Score = Callable[[Cells], np.ndarray]


@dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        score: function from the cells to ``(h, w)`` float32, 0..1; at least 0.5 means foreground.
        features: whether the method needs ``Cells.features``.
        objectness: whether the method needs ``Cells.objectness``, and thus an encoder with that head.
    """

    score: Score
    features: bool = False
    objectness: bool = False

    @property
    def summary(self) -> str:
        """Return the first line of the function's docstring."""
        return (self.score.__doc__ or "").strip().partition("\n")[0]

    @property
    def independent(self) -> bool:
        """Return whether the scores are independent of the encoder."""
        return not (self.features or self.objectness)


METHODS: dict[str, Method] = {}


def method(*, features: bool = False, objectness: bool = False) -> Callable[[Score], Score]:
    """Register the decorated function as a method under its name, with hyphens for underscores.

    The first line of its docstring is the method's summary. The arguments are those of :class:`Method`: features and
    objectness are computed only for methods that need them.
    """

    def decorate(score: Score) -> Score:
        name = score.__name__.replace("_", "-")
        if name in METHODS:
            raise ValueError(f"{name} is registered twice")
        METHODS[name] = Method(score, features, objectness)
        return score

    return decorate


@dataclass(frozen=True, eq=False)
class Regions:
    """Superpixels: labels ``(h, w)``; the colour ``(n, 3)`` and position ``(n, 2)`` of each; which are neighbours
    ``(n, n)``; and which touch the border ``(n,)``."""

    labels: np.ndarray
    lab: np.ndarray
    place: np.ndarray
    neighbours: np.ndarray
    border: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Average ``(h, w)`` values over each region."""
        return group_mean(values.reshape(-1, 1), self.labels.ravel(), len(self.lab))[:, 0]


def foreground(name: str, cells: Cells) -> np.ndarray:
    """Score every cell with one of the methods.

    Args:
        name: key of :data:`METHODS`.
        cells: the image on its grid.

    Returns:
        ``(h, w)`` float32, 0..1; at least 0.5 means foreground.
    """
    return METHODS[name].score(cells)


@method()
def boundary(cells: Cells) -> np.ndarray:
    """Score cells from their colours alone, assuming that objects rarely touch the image's border.

    Source: Zhu, Liang, Wei and Sun, "Saliency optimization from robust background detection", CVPR 2014.
    """
    regions = superpixels(cells.lab)
    score, _ = boundary_prior(regions)
    return object_scores(regions, score)


@method(objectness=True)
def objectness(cells: Cells) -> np.ndarray:
    """Score cells with the encoder's objectness head, smoothed within regions by Zhu's optimization (equation 9)."""
    assert cells.objectness is not None, "segment() provides it for this method"
    regions = superpixels(cells.lab)
    return object_scores(regions, smoothed_objectness(regions, cells.objectness)[0])


@method(features=True)
def ncut(cells: Cells) -> np.ndarray:
    """Split the cells into two groups with little similarity; the object is the group with the most extreme cell.

    Source: Wang et al., "Self-supervised transformers for unsupervised object discovery using normalized cut"
    (TokenCut), CVPR 2022.
    """
    assert cells.features is not None, "segment() provides them for this method"
    step = max(round((cells.lab.shape[0] * cells.lab.shape[1] / 1024) ** 0.5), 1)
    features = cells.features[::step, ::step]
    flat = features.reshape(-1, features.shape[2])
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    links = np.where(flat @ flat.T > TAU, 1.0, 1e-5)
    root = 1 / np.sqrt(links.sum(1))
    second = np.linalg.eigh(np.eye(len(links)) - root[:, None] * links * root)[1][:, :2][:, -1] * root
    if abs(second.min()) > second.max():
        second = -second
    score = spread(second.reshape(features.shape[:2])).repeat(step, 0).repeat(step, 1)
    return halved_at(score[: cells.lab.shape[0], : cells.lab.shape[1]], float(spread(second).mean()))


@method()
def none(cells: Cells) -> np.ndarray:
    """Score every cell as foreground."""
    return np.ones(cells.lab.shape[:2], np.float32)


def object_scores(regions: Regions, score: np.ndarray, share: float = THIN) -> np.ndarray:
    """Turn the regions' scores ``(n,)`` into the cells' scores ``(h, w)``: the foreground lies above a share of Otsu's
    threshold, except for connected pieces much smaller than the largest."""
    threshold = share * otsu(score[regions.labels])
    inside = score >= threshold
    size = np.bincount(regions.labels.ravel())
    # Number the connected pieces: each region takes its neighbours' highest number until nothing changes.
    piece = np.where(inside, np.arange(len(score)), -1)
    linked = regions.neighbours & inside & inside[:, None] | np.eye(len(score), dtype=bool)
    while True:
        reached = np.where(linked, piece, -1).max(1)
        if (reached == piece).all():
            break
        piece = np.where(inside, reached, -1)
    area = np.bincount(piece[inside], size[inside], len(score))
    crumb = inside & (area[piece] < CRUMB * area.max())
    bent = halved_at(score, threshold)
    return np.where(crumb, np.minimum(bent, 1 - bent), bent)[regions.labels].clip(0, 1)


def boundary_prior(regions: Regions) -> tuple[np.ndarray, float]:
    """Return Zhu's saliency of each region, 0..1, and its certainty: the highest value before stretching."""
    distance = colour_distance(regions)
    background, contrast = background_and_contrast(regions, distance)
    score = optimize(regions, distance, background, contrast)
    return spread(score), float(score.max())


def smoothed_objectness(regions: Regions, probability: np.ndarray) -> tuple[np.ndarray, float]:
    """Smooth probabilities ``(h, w)`` over regions and stretch them to 0..1; their original range is the certainty."""
    objects = regions.mean(probability)
    score = optimize(regions, colour_distance(regions), 1 - objects, objects)
    return spread(score), float(np.ptp(score))


def superpixels(lab: np.ndarray) -> Regions:
    """Group cells into about 200 compact regions of one colour.

    Source: Achanta et al., "SLIC superpixels", TPAMI 2012, without the enforcement of connectivity.
    """
    height, width, _ = lab.shape
    step = max((height * width / REGIONS) ** 0.5, 1.0)
    rows, columns = max(round(height / step), 1), max(round(width / step), 1)
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width].astype(np.float32))
    home_y, home_x = (y * rows / height).astype(int), (x * columns / width).astype(int)
    # Cells are compared with the centres of the 3 x 3 nearest grid squares only, which bounds time and keeps regions
    # compact.
    near = np.stack(
        [
            np.clip(home_y + i, 0, rows - 1) * columns + np.clip(home_x + j, 0, columns - 1)
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
        ]
    )
    points = np.ascontiguousarray(
        np.concatenate([lab.reshape(-1, 3), COMPACTNESS / step * np.stack([y, x], 1)], axis=1).T
    )
    labels = near[4]
    for _ in range(ROUNDS):
        centres = group_mean(points.T, labels, rows * columns)
        centres[np.bincount(labels, minlength=len(centres)) == 0] = np.inf
        distance = sum((axis - centre[near]) ** 2 for axis, centre in zip(points, centres.T, strict=True))
        labels = near[distance.argmin(0), np.arange(len(labels))]
    labels = np.unique(labels, return_inverse=True)[1]
    count, grid = labels.max() + 1, labels.reshape(height, width)
    neighbours = np.zeros((count, count), bool)
    for a, b in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        neighbours[a, b] = neighbours[b, a] = True
    np.fill_diagonal(neighbours, False)
    border = np.zeros(count, bool)
    border[np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])] = True
    place = np.stack([y, x], 1) / max(height, width)
    return Regions(
        grid, group_mean(lab.reshape(-1, 3), labels, count), group_mean(place, labels, count), neighbours, border
    )


def colour_distance(regions: Regions) -> np.ndarray:
    """Compute the distances ``(n, n)`` between the regions' colours, in units of the prior's sigma."""
    return pairwise(regions.lab) / SIGMA


def background_and_contrast(regions: Regions, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Zhu's probability of being background (equations 2-6) and background-weighted contrast (equation 8)."""
    steps = np.sort(np.where(regions.neighbours, distance, np.inf), axis=1)[:, :2]
    texture = steps[np.isfinite(steps)].mean() if np.isfinite(steps).any() else 0.0  # steps within texture cost nothing
    graph = np.where(_linked(regions), np.maximum(distance - texture, 0), np.inf)
    np.fill_diagonal(graph, 0)
    # Floyd-Warshall: regions are as far apart as colours change on the smoothest path between them, so a region that
    # fades into the border counts as background even if its colour differs from the border's.
    for i in range(len(graph)):
        np.minimum(graph, graph[:, i, None] + graph[None, i], out=graph)
    reach = np.exp(-(np.minimum(graph, 1e3) ** 2) / 2)
    connectivity = reach[:, regions.border].sum(1) / np.sqrt(reach.sum(1))
    background = 1 - np.exp(-(connectivity**2) / 2)
    contrast = (distance * np.exp(-(pairwise(regions.place) ** 2) / (2 * REACH**2))) @ background
    return background, spread(contrast)


def optimize(regions: Regions, distance: np.ndarray, background: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Solve for scores ``(n,)`` near 0 in likely background, near 1 in likely objects, smooth between (equation 9)."""
    near = regions.neighbours.astype(np.float32)
    # The minimum of a quadratic cost: links pull similar neighbours together, and regions two steps apart as well, so
    # that one noisy superpixel cannot split an object. The 1e-6 keeps the system solvable for a region with no links.
    links = np.where(_linked(regions) | (near @ near > 0), np.exp(-(distance**2) / 2), 0) + SMOOTHNESS * near
    np.fill_diagonal(links, 0)
    system = np.diag(links.sum(1) + background + objects + 1e-6) - links
    return np.linalg.solve(system, objects).clip(0, 1)


def _linked(regions: Regions) -> np.ndarray:
    """Return which regions are neighbours, where all regions at the border count as neighbours of each other."""
    return regions.neighbours | (regions.border[:, None] & regions.border)


def group_mean(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Average the values ``(N, D)`` of each label, to ``(count, D)``; labels without values get zeros."""
    counts = np.bincount(labels, minlength=count)
    sums = np.stack([np.bincount(labels, column, count) for column in values.T], axis=1)
    return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)


def pairwise(points: np.ndarray) -> np.ndarray:
    """Compute the Euclidean distances ``(n, n)`` between points."""
    squares = (points**2).sum(1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))


def spread(values: np.ndarray) -> np.ndarray:
    """Stretch values to 0..1; equal values become zeros."""
    low, span = values.min(), np.ptp(values)
    return ((values - low) / span if span > 1e-6 else np.zeros_like(values)).astype(np.float32)


def halved_at(values: np.ndarray, threshold: float) -> np.ndarray:
    """Map values in 0..1 piecewise linearly, so that the threshold moves to 0.5."""
    below, above = 0.5 * values / max(threshold, 1e-6), 0.5 + 0.5 * (values - threshold) / max(1 - threshold, 1e-6)
    return np.where(values < threshold, below, above).clip(0, 1).astype(np.float32)


def otsu(values: np.ndarray) -> float:
    """Return the threshold that minimizes the variance of the values on either side of it (Otsu, 1979)."""
    ordered = np.sort(values, axis=None).astype(np.float64)
    if ordered[0] == ordered[-1]:
        return 0.5
    total, below = np.cumsum(ordered), np.arange(1, len(ordered))
    above = len(ordered) - below
    between = below * above * (total[:-1] / below - (total[-1] - total[:-1]) / above) ** 2
    best = int(between.argmax())
    return float(ordered[best] + ordered[best + 1]) / 2
