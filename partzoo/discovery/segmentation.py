"""Segment the foreground of an image and say how certain it is, with a foreground model or another method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from partzoo.discovery.colours import cielab
from partzoo.discovery.foreground import METHODS, Cells, foreground, halved_at
from partzoo.discovery.frames import cropped, within_frame
from partzoo.discovery.pieces import connected_pieces
from partzoo.discovery.refine import resize
from partzoo.discovery.views import CELL, View
from partzoo.images.opening import OpenedImage
from partzoo.models.base import Model
from partzoo.models.foreground import ForegroundModel

LIKELIEST = 0.6  # share of the highest probability that counts as foreground where nothing reaches one half
CRUMB = 0.1  # share of the largest connected piece's area below which a piece is not part of the foreground
BLANK = 2.0  # an image whose CIELAB channels all span less than this is blank


@dataclass(frozen=True, eq=False)
class Foreground:
    """Foreground of one image on the grid of cells.

    Attributes:
        score: ``(h, w)`` float32, 0..1; at least 0.5 means foreground.
        quality: certainty of the foreground, 0..1, see :func:`certainty` and :func:`plausibility`.
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
        image: the image; a foreground model receives it at its original size.
        view: the same image at its working size.
        maps: features ``(C, h_i, w_i)`` of the encoder's layers, coarsest last; all of them for a method that
            needs objectness.
        method: key of :data:`partzoo.discovery.foreground.METHODS`; not used with a foreground model.
        model: the encoder that computed the maps.
        network: a foreground model, or None to use ``method``.
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
    """Set connected pieces of scores ``(h, w)`` to background if they have less than a tenth of the largest one's area.

    On dev splits this changes the mean IoU by -0.04 to +0.27 points (docs/discovery.md).
    """
    inside = score >= 0.5
    areas = piece_areas(inside)
    return torch.where(inside & (areas < CRUMB * areas.max()), 1 - score, score)


def piece_areas(inside: Tensor) -> Tensor:
    """Return the area, in cells, of the connected piece that each cell of ``(h, w)`` bool belongs to; 0 outside."""
    pieces = connected_pieces(inside.numpy())
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    return torch.from_numpy(areas[pieces])


def given(mask: np.ndarray, pixels: Tensor) -> Foreground:
    """Return the foreground marked by a caller's mask ``(H, W)`` bool in an image with working pixels ``(3, h, w)``.

    Small objects keep at least the cells that they fill most.
    """
    height, width = (side // CELL for side in pixels.shape[1:])
    share = resize(torch.from_numpy(mask).float()[None], (height, width))[0]
    return Foreground(at_least_something(share), 1.0)


def certainty(score: Tensor) -> float:
    """Compute the certainty of a foreground, 0..1: its expected IoU if its probabilities are correct.

    It is the sum of the probabilities inside, divided by the area inside plus the sum of the probabilities outside.
    """
    inside = score >= 0.5
    if not inside.any():
        return 0.0
    return float(score[inside].sum() / (inside.sum() + score[~inside].sum()))


def plausibility(score: Tensor) -> float:
    """Estimate how plausible a foreground by a method without learned probabilities is, 0..1.

    Its :func:`certainty` alone hardly ranks the failures of such methods. It is the geometric mean of that, of the
    :func:`separation`, and of the two shares in :func:`wholeness` (docs/discovery.md).
    """
    return (certainty(score) * separation(score) * wholeness(score)) ** 0.25


def separation(score: Tensor) -> float:
    """Return the mean score inside a foreground minus the mean score outside, 0..1."""
    inside = score >= 0.5
    return float(score[inside].mean() - score[~inside].mean()) if inside.any() and not inside.all() else 0.0


def wholeness(score: Tensor) -> float:
    """Measure how much a foreground is like one object within the image, 0..1.

    It is the share of the foreground that lies in its largest connected piece, times the share of the image's border
    that is background.
    """
    inside = score >= 0.5
    border = torch.cat([inside[0], inside[-1], inside[1:-1, 0], inside[1:-1, -1]]).float().mean()
    return float(piece_areas(inside).max() / inside.sum().clamp(min=1) * (1 - border))


def at_least_something(found: Tensor) -> Tensor:
    """Rescale probabilities so that an image in which none reaches one half still keeps its likeliest foreground."""
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
    """Collect the input of a foreground method: the cells inside the frame, and what it needs from the encoder."""
    rows, columns = (slice(s.start // CELL, s.stop // CELL) for s in inside)
    size = lab[0, rows, columns].shape
    objectness = features = None
    if METHODS[method].objectness:
        found = model.objectness(*cropped(maps, lab.to(maps[0].device), inside, working))
        objectness = resize(found.float().cpu()[None], size)[0].numpy()
    if METHODS[method].features:
        found = cropped([normalize(maps[-1].cpu(), dim=0)], lab, inside, working)[0][0]
        features = resize(found - found.mean((1, 2), keepdim=True), size).permute(1, 2, 0).numpy()
    return Cells(lab[:, rows, columns].permute(1, 2, 0).numpy(), features, objectness)
