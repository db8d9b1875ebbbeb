"""Parts that a part model can start from: clusters of its encoder's features, or the parts that are discovered.

A cluster of features is a part if every image has it, in one place. PartFormer asks the same of its parts with the
losses for area and concentration, which here choose among clusterings and among merges. This suits parts that are in
one place in all images, such as those of faces. Parts of other objects start as :func:`partzoo.discover_parts` finds
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, interpolate, normalize, one_hot

from partzoo.data.image_sets import Examples
from partzoo.discovery.cluster import spherical_kmeans
from partzoo.discovery.pipeline import discover_parts
from partzoo.models.base import Encoder
from partzoo.models.frozen import level_features
from partzoo.models.mpae.model import Mpae
from partzoo.models.partformer.model import PartFormer
from partzoo.parts.parts import Parts
from partzoo.train.part_images import PartOptions, check_foreground

Start = Literal["random", "clusters", "discovered"]

IMAGES, BATCH = 300, 16  # number of images whose features are clustered, and number that is encoded at once
MORE = 2  # number of clusters for each part
POINTS = 12_000  # largest number of cells that are clustered
RESTARTS = 8  # number of clusterings to choose from
FEW = 1 / 128  # area at which half of a part counts as missing, as a share of the image's cells
SPREAD = 0.1  # weight of a part's spread against its missing share
FITTED, STEPS, DECAY = 40_000, 60, 1e-3  # cells, steps of L-BFGS and weight of the squared norm for the classifier


@dataclass(frozen=True, eq=False)
class FirstParts:
    """A linear classifier of standardized features into background and parts.

    Attributes:
        mean, std: ``(C,)`` of each channel over the cells of the images.
        weight: ``(K + 1, C)``, background first.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor, classes: int, seed: int = 0) -> FirstParts:
        """Fit the classifier to the parts of cells.

        Args:
            features: ``(N, C, h, w)``.
            labels: ``(N, h, w)`` int64, 0 for the background.
            classes: number of parts, plus one.
            seed: random seed of the sample of cells.
        """
        mean, std = features.mean((0, 2, 3)), features.std((0, 2, 3)) + 1e-6
        drawn = torch.randperm(labels.numel(), generator=torch.Generator().manual_seed(seed))[:FITTED]
        points = (features.permute(0, 2, 3, 1).flatten(0, 2)[drawn] - mean) / std
        return cls(mean, std, logistic_regression(points, labels.flatten()[drawn], classes))

    def labels(self, features: Tensor) -> Tensor:
        """Return the part of each cell of features ``(B, C, h, w)``: ``(B, h, w)`` int64, 0 for the background."""
        mean, std, weight = (each.to(features.device) for each in (self.mean, self.std, self.weight))
        standardized = (features.float() - mean[:, None, None]) / std[:, None, None]
        return torch.einsum("kc,bchw->bkhw", weight, standardized).argmax(1)


@torch.no_grad()
def started(
    model: PartFormer | Mpae,
    options: PartOptions,
    weights: Mapping[str, float],
    start: Start,
    examples: Examples,
) -> FirstParts | None:
    """Start a model with parts of some of its training images, if its task says so.

    Args:
        model: the model.
        options: options for reading the images.
        weights: weights of the task's losses.
        start: what the task starts from.
        examples: the images.

    Returns:
        The parts that the model starts with, or None.

    Raises:
        UsageError: the foreground is needed, and the options name no model that predicts it; or the model cannot start
            with given parts.
    """
    check_foreground(options, weights, start)
    if start == "random":
        return None
    first = first_parts(model, examples, start)
    model.start_with(first.mean, first.std, first.weight)
    return first


def first_parts(model: PartFormer | Mpae, examples: Examples, start: Start) -> FirstParts:
    """Find the first parts of a model with a frozen encoder in some of its training images.

    Args:
        model: model that will start with the parts.
        examples: images, for clusters with their foreground as a fourth channel.
        start: ``"clusters"`` or ``"discovered"``.

    Raises:
        UsageError: the model cannot start with given parts.
    """
    model.check_start()
    levels, images = [], []
    for numbers in torch.linspace(0, len(examples) - 1, min(len(examples), IMAGES)).long().split(BATCH):
        pixels = examples.draw(numbers)[1].float()
        x = model.preprocess.normalize(pixels[:, :3])
        levels.append(level_features(cast(Encoder, model.encoder), x, model.config.levels))
        images.append(pixels)
    maps, parts = [torch.cat(level) for level in zip(*levels, strict=True)], model.config.parts
    if start == "discovered":
        labels = discovered(torch.cat(images)[:, :3], (maps[0].shape[2], maps[0].shape[3]), parts)
    else:
        foreground = interpolate(torch.cat(images)[:, 3:] / 255, maps[0].shape[2:], mode="area")[:, 0]
        labels = clustered(maps, foreground >= 0.5, parts)
    return FirstParts.fit(torch.cat(maps, dim=1), labels, parts + 1)


def discovered(pixels: Tensor, grid: tuple[int, int], parts: int) -> Tensor:
    """Return the parts that :func:`partzoo.discover_parts` finds in images, in each cell the one with most area.

    Args:
        pixels: ``(N, 3, H, W)``, 0 to 255.
        grid: number of rows and columns of cells.
        parts: number of parts K.

    Returns:
        ``(N, rows, columns)`` int64, 0 for the background.
    """
    images = [each.permute(1, 2, 0).byte().numpy() for each in pixels]
    found = []
    for each in cast("list[Parts]", discover_parts(images, parts)):
        labels = torch.tensor(each.labels, dtype=torch.int64)
        areas = adaptive_avg_pool2d(one_hot(labels, parts + 1).float().permute(2, 0, 1), grid)
        found.append(areas.argmax(0))
    return torch.stack(found)


def clustered(maps: Sequence[Tensor], inside: Tensor, parts: int) -> Tensor:
    """Cluster the cells of images into parts.

    Of several clusterings into more clusters than parts, each merged by :func:`merged`, the one of least cost is taken.

    Args:
        maps: features of each level ``(N, C_i, h, w)``, on one grid.
        inside: ``(N, h, w)`` bool, the foreground.
        parts: number of parts K.

    Returns:
        ``(N, h, w)`` int64: 0 outside, 1 to K inside.
    """
    cells = torch.cat([centred(level, inside) for level in maps], dim=1).permute(0, 2, 3, 1)[inside]
    found, least = torch.zeros(inside.shape, dtype=torch.int64), torch.inf
    for seed in range(RESTARTS):
        drawn = torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))[:POINTS]
        centres = spherical_kmeans(cells[drawn], MORE * parts, seed=seed, restarts=1).centres
        labels = torch.full(inside.shape, -1)
        labels[inside] = (cells @ centres.T).argmax(1)
        part, cost = merged(labels, len(centres), parts)
        if cost < least:
            found, least = torch.where(inside, 1 + part[labels], 0), cost
    return found


def centred(level: Tensor, inside: Tensor) -> Tensor:
    """Standardize features ``(N, C, h, w)``, subtract the mean of each image's foreground, and make them unit vectors.

    What a whole object has in common does not distinguish its parts.
    """
    scaled, mask = level / (level.std((0, 2, 3), keepdim=True) + 1e-6), inside[:, None].float()
    mean = (scaled * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp(min=1)
    return normalize(scaled - mean, dim=1)


def merged(labels: Tensor, clusters: int, parts: int) -> tuple[Tensor, float]:
    """Merge clusters into parts, at each step the two whose merge lowers the parts' cost most or raises it least.

    Args:
        labels: ``(N, h, w)`` int64, the cluster of each cell, or -1 for none.
        clusters: number of clusters.
        parts: number of parts to leave.

    Returns:
        The part of each cluster ``(clusters,)`` int64, and the sum of the parts' costs.
    """
    moments, part = _moments(labels, clusters), torch.arange(clusters)
    few = FEW * labels[0].numel()
    while (count := moments.shape[1]) > parts:
        cost = _costs(moments, few)
        first, second = torch.triu_indices(count, count, 1)
        rise = _costs(moments[:, first] + moments[:, second], few) - cost[first] - cost[second]
        a, b = int(first[rise.argmin()]), int(second[rise.argmin()])
        moments[:, a] += moments[:, b]
        moments = torch.cat([moments[:, :b], moments[:, b + 1 :]], dim=1)
        part[part == b] = a
        part[part > b] -= 1
    return part, float(_costs(moments, few).sum())


def _moments(labels: Tensor, clusters: int) -> Tensor:
    """Return area, sums of x and y, and sum of their squares of each cluster in each image, ``(N, clusters, 4)``."""
    rows, columns = labels.shape[1:]
    y, x = torch.meshgrid(torch.arange(float(rows)), torch.arange(float(columns)), indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y, x**2 + y**2], dim=-1).flatten(0, 1)
    return torch.stack([one_hot(1 + each.flatten(), 1 + clusters)[:, 1:].float().T @ basis for each in labels])


def _costs(moments: Tensor, few: float) -> Tensor:
    """Return each cluster's cost: its mean area loss, and how much more spread out it is than a disc of its area."""
    area = moments[..., 0]
    missing = (1 / (1 + area / few)).mean(0)
    present = (area >= few / 2).float()
    centre = moments[..., 1:3] / area.clamp(min=1)[..., None]
    variance = moments[..., 3] / area.clamp(min=1) - centre.square().sum(-1)
    spread = (2 * torch.pi * variance / area.clamp(min=1)).clamp(max=20) - 1
    return missing + SPREAD * (spread * present).sum(0) / present.sum(0).clamp(min=1)


def logistic_regression(points: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Fit the weights ``(classes, C)`` of a logistic regression without intercept to points ``(n, C)``."""
    weight = torch.zeros(classes, points.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(points @ weight.T, labels) + DECAY * weight.square().sum() / 2
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach()
