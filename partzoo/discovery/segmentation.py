"""Foreground of one image, by a foreground model or by a method that needs none, and how certain it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, normalize

from partzoo.discovery.colours import cielab
from partzoo.discovery.foreground import Cells, foreground, halved_at
from partzoo.discovery.frames import cropped, within_frame
from partzoo.discovery.refine import resize
from partzoo.discovery.views import CELL, View
from partzoo.images.opening import OpenedImage
from partzoo.models.base import Model
from partzoo.models.foreground import ForegroundModel

DOUBTFUL = 0.7  # quality below which a foreground is doubtful, see docs/discovery.md
LIKELIEST = 0.6  # share of the highest probability that counts as foreground where nothing reaches one half
CRUMB = 0.1  # share of the largest connected piece's area below which a piece is not part of the foreground
BLANK = 2.0  # an image whose CIELAB channels all span less than this shows nothing


@dataclass(frozen=True, eq=False)
class Foreground:
    """Foreground of one image on the grid of cells.

    Attributes:
        score: ``(h, w)`` float32, 0..1, foreground from 0.5 on.
        quality: how certain it is, 0..1, see :func:`certainty` and :func:`plausibility`.
    """

    score: Tensor
    quality: float


def segment(
    image: OpenedImage,
    view: View,
    maps: Sequence[Tensor],
    method: str,
    model: Model,
    network: ForegroundModel | None = None,
) -> Foreground:
    """Separate an image's foreground from its background.

    Args:
        image: the image, which a foreground model looks at in its own size.
        view: the same image at its working size.
        maps: features ``(C, h_i, w_i)`` of the encoder's layers, coarsest last; ``"objectness"`` needs all of them.
        method: key of :data:`partzoo.discovery.foreground.METHODS`; not used with a foreground model.
        model: the encoder.
        network: a foreground model.
    """
    lab = cielab(avg_pool2d(view.pixels, CELL))
    size = lab.shape[1:]
    if (lab.amax((1, 2)) - lab.amin((1, 2))).max() < BLANK:
        return Foreground(torch.zeros(size), 0.0)
    if network is not None:
        found = resize(network.probability(image.pixels)[None], size)[0]
        return Foreground(without_crumbs(at_least_something(found)), certainty(found))
    inside = within_frame(view.pixels, lcm(model.preprocess.multiple, CELL))
    rows, columns = (slice(s.start // CELL, s.stop // CELL) for s in inside)
    cells = _cells(method, model, maps, lab, inside, view.pixels.shape[1:])
    score, found = torch.zeros(size), torch.from_numpy(foreground(method, cells))
    score[rows, columns] = found
    return Foreground(score, 1.0 if method == "none" else plausibility(found))


def without_crumbs(score: Tensor) -> Tensor:
    """Scores ``(h, w)`` in which connected pieces with less than a tenth of the largest one's area are background.

    On dev splits this changes the mean IoU by -0.04 to +0.27 points (docs/discovery.md).
    """
    inside = score >= 0.5
    areas = piece_areas(inside)
    return torch.where(inside & (areas < CRUMB * areas.max()), 1 - score, score)


def piece_areas(inside: Tensor) -> Tensor:
    """The area, in cells, of the connected piece that each cell of ``(h, w)`` bool belongs to; 0 outside."""
    piece = torch.where(inside, torch.arange(1.0, inside.numel() + 1).view(inside.shape), 0)
    while True:  # every cell takes the highest number among its neighbours, until each piece has one number
        reached = torch.where(inside, max_pool2d(piece[None], 3, 1, 1)[0], 0)
        if torch.equal(reached, piece):
            break
        piece = reached
    areas = torch.bincount(piece[inside].long(), minlength=inside.numel() + 1)
    return areas[piece.long()] * inside


def given(mask: np.ndarray, pixels: Tensor) -> Foreground:
    """The foreground that a caller's mask ``(H, W)`` bool marks in an image whose working pixels are ``(3, h, w)``.

    Small objects keep at least their fullest cells.
    """
    height, width = (side // CELL for side in pixels.shape[1:])
    share = resize(torch.from_numpy(mask).float()[None], (height, width))[0]
    return Foreground(at_least_something(share), 1.0)


def certainty(score: Tensor) -> float:
    """How certain a foreground is, 0..1: its expected intersection over union, if its probabilities are right.

    It is the sum of the probabilities inside over the area inside plus the sum of the probabilities outside.
    """
    inside = score >= 0.5
    if not inside.any():
        return 0.0
    return float(score[inside].sum() / (inside.sum() + score[~inside].sum()))


def plausibility(score: Tensor) -> float:
    """How plausible a foreground by a method without learned probabilities is, 0..1.

    Its :func:`certainty` alone hardly ranks the failures of such methods. It is the geometric mean of that, of the
    :func:`separation`, and of the two shares in :func:`wholeness` (docs/discovery.md).
    """
    return (certainty(score) * separation(score) * wholeness(score)) ** 0.25


def separation(score: Tensor) -> float:
    """The mean score inside a foreground minus the mean score outside, 0..1."""
    inside = score >= 0.5
    return float(score[inside].mean() - score[~inside].mean()) if inside.any() and not inside.all() else 0.0


def wholeness(score: Tensor) -> float:
    """How much a foreground is like one object within the image, 0..1.

    It is the share of the foreground that lies in its largest connected piece, times the share of the image's border
    that is background.
    """
    inside = score >= 0.5
    border = torch.cat([inside[0], inside[-1], inside[1:-1, 0], inside[1:-1, -1]]).float().mean()
    return float(piece_areas(inside).max() / inside.sum().clamp(min=1) * (1 - border))


def at_least_something(found: Tensor) -> Tensor:
    """Probabilities bent so that an image in which nothing reaches one half still has its likeliest foreground."""
    threshold = min(0.5, LIKELIEST * float(found.max()))
    return torch.from_numpy(halved_at(found.numpy(), threshold))


def _cells(
    method: str,
    model: Model,
    maps: Sequence[Tensor],
    lab: Tensor,
    inside: tuple[slice, slice],
    working: Sequence[int],
) -> Cells:
    """What a method looks at: the cells inside the frame."""
    rows, columns = (slice(s.start // CELL, s.stop // CELL) for s in inside)
    size = lab[0, rows, columns].shape
    objectness = features = None
    if method == "objectness":
        found = model.objectness(*cropped(maps, lab.to(maps[0].device), inside, working))
        objectness = resize(found.float().cpu()[None], size)[0].numpy()
    elif method == "ncut":
        found = cropped([normalize(maps[-1].cpu(), dim=0)], lab, inside, working)[0][0]
        features = resize(found - found.mean((1, 2), keepdim=True), size).permute(1, 2, 0).numpy()
    return Cells(lab[:, rows, columns].permute(1, 2, 0).numpy(), features, objectness)
