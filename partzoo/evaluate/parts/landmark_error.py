"""Predict landmarks from parts on one split, and measure the error on another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from partzoo.errors import UsageError
from partzoo.evaluate.parts.landmarks import LandmarkRegression, inter_ocular, landmark_distances

if TYPE_CHECKING:
    from partzoo.evaluate.protocols.base import LandmarkError


@dataclass(frozen=True, eq=False)
class Places:
    """Positions of parts and landmarks in the images of a split, in the frame's pixels.

    Attributes:
        centroids: ``(N, K, 2)`` x, y of each part, NaN where absent.
        landmarks: ``(N, L, 2)`` x, y.
        visible: ``(N, L)`` bool, landmarks that count; None counts all.
        active: ``(N, K)`` bool, parts that count as present; None counts all that have a centroid.
        boxes: ``(N, 4)`` x, y, width, height; None if the data has none.
    """

    centroids: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray | None = None
    active: np.ndarray | None = None
    boxes: np.ndarray | None = None

    def in_boxes(self) -> Places:
        """Convert positions to coordinates in which each image's box is the unit square.

        Raises:
            UsageError: there are no boxes.
        """
        boxes = np.asarray(_needed(self.boxes), np.float64)
        corner, size = boxes[:, None, :2], boxes[:, None, 2:]
        centroids, landmarks = ((points - corner) / size for points in (self.centroids, self.landmarks))
        return Places(centroids, landmarks, self.visible, self.active, np.tile([0.0, 0.0, 1.0, 1.0], (len(boxes), 1)))


def landmark_error(rules: LandmarkError, fit: Places, report: Places, side: float) -> np.ndarray:
    """Compute the error of each landmark in per cent, from a regression fitted on one split and applied to another.

    Boxes normalize positions before the regression, as in PDiscoFormer; other lengths only divide the error.

    Args:
        rules: rules of the protocol; ``centroids`` and ``active`` must have been applied to ``fit`` and ``report``.
        fit, report: parts and landmarks of the two splits.
        side: height and width of the frame in pixels.

    Returns:
        ``(N, L)``, NaN where a landmark does not count; the normalized mean error is the mean of the others.

    Raises:
        UsageError: the rules ask for boxes, but there are none; or a landmark is never visible in ``fit``.
        ShapeError: the shapes do not agree.
    """
    if rules.scale == "box":
        fit, report = fit.in_boxes(), report.in_boxes()
    regression = LandmarkRegression(
        fit.centroids, fit.landmarks, fit.visible, active=fit.active, standardize=rules.standardize
    )
    predicted = regression.predict(report.centroids, report.active)
    return landmark_distances(predicted, report.landmarks, error_scale(rules.scale, report, side), report.visible)


def error_scale(rule: str, places: Places, side: float) -> np.ndarray:
    """Return the length by which each image's errors are divided, ``(N,)``; for ``"box"``, width and height ``(N, 2)``.

    Args:
        rule: ``"inter-ocular"`` (landmarks 0 and 1), ``"box"``, ``"diagonal"`` (of the box) or ``"edge"`` (frame).
        places: landmarks and boxes.
        side: height and width of the frame in pixels.

    Raises:
        UsageError: the rule is unknown, or needs boxes that the data does not have.
    """
    if rule == "inter-ocular":
        return inter_ocular(places.landmarks)
    if rule == "edge":
        return np.full(len(places.landmarks), float(side))
    if rule in ("box", "diagonal"):
        size = np.asarray(_needed(places.boxes), np.float64)[:, 2:]
        return size if rule == "box" else np.linalg.norm(size, axis=1)
    raise UsageError(f"Unknown scale {rule!r}. The scales are 'inter-ocular', 'box', 'edge' and 'diagonal'.")


def _needed(boxes: np.ndarray | None) -> np.ndarray:
    if boxes is None:
        raise UsageError(
            "The error is divided by the size of the objects' boxes, but the data has no boxes. Use another scale."
        )
    return boxes
