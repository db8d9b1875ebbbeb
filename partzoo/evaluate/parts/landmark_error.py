"""The landmark error of a protocol: parts and landmarks of two splits in, errors out."""

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
    """Where parts and landmarks lie in the images of a split; all in the frame's pixels.

    Attributes:
        centroids: ``(N, K, 2)`` x, y of each part, NaN where absent.
        landmarks: ``(N, L, 2)`` x, y.
        visible: ``(N, L)`` bool, the landmarks that count; None: all.
        active: ``(N, K)`` bool, the parts that count as present; None: all with a centroid.
        boxes: ``(N, 4)`` x, y, width, height; None where the data has none.
    """

    centroids: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray | None = None
    active: np.ndarray | None = None
    boxes: np.ndarray | None = None

    def in_boxes(self) -> Places:
        """The same with each box as unit square.

        Raises:
            UsageError: there are no boxes.
        """
        boxes = np.asarray(_needed(self.boxes), np.float64)
        corner, size = boxes[:, None, :2], boxes[:, None, 2:]
        centroids, landmarks = ((points - corner) / size for points in (self.centroids, self.landmarks))
        return Places(centroids, landmarks, self.visible, self.active, np.tile([0.0, 0.0, 1.0, 1.0], (len(boxes), 1)))


def landmark_error(rules: LandmarkError, fit: Places, report: Places, side: float) -> np.ndarray:
    """Error of each landmark in per cent, by a regression fitted on one split and reported on another.

    Boxes normalize before the regression, as in PDiscoFormer; the other lengths divide the error alone.

    Args:
        rules: the protocol's; ``centroids`` and ``active`` of it are followed in reading ``fit`` and ``report``.
        fit, report: parts and landmarks of the two splits.
        side: height and width of the frame in pixels.

    Returns:
        ``(N, L)``, NaN where a landmark does not count; the normalized mean error is the mean of the others.

    Raises:
        UsageError: the rules ask for boxes, and there are none; or a landmark is not visible in ``fit``.
        ShapeError: shapes do not agree.
    """
    if rules.scale == "box":
        fit, report = fit.in_boxes(), report.in_boxes()
    regression = LandmarkRegression(
        fit.centroids, fit.landmarks, fit.visible, active=fit.active, standardize=rules.standardize
    )
    predicted = regression.predict(report.centroids, report.active)
    return landmark_distances(predicted, report.landmarks, error_scale(rules.scale, report, side), report.visible)


def error_scale(rule: str, places: Places, side: float) -> np.ndarray:
    """The length that errors in each image are divided by, ``(N,)``; for ``"box"`` width and height ``(N, 2)``.

    Args:
        rule: ``"inter-ocular"`` (landmarks 0 and 1), ``"box"``, ``"diagonal"`` (of the box) or ``"edge"`` (frame).
        places: landmarks and boxes.
        side: height and width of the frame in pixels.

    Raises:
        UsageError: the rule is unknown, or asks for boxes where there are none.
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
