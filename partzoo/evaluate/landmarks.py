"""Parts against landmarks: the part under a point, and the points that part centroids predict."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from partzoo.errors import ShapeError, UsageError

OUTSIDE = -1


def labels_at(labels: ArrayLike, points: ArrayLike) -> np.ndarray:
    """The label of the pixel nearest to each point.

    Args:
        labels: ``(N, H, W)`` integers.
        points: ``(N, L, 2)`` x, y in pixels; pixel (row, column) is the point (column, row).

    Returns:
        ``(N, L)`` int64; -1 where the point lies outside the picture.

    Raises:
        ShapeError: shapes do not agree.
    """
    labels, points = np.asarray(labels), np.asarray(points, dtype=np.float64)
    if labels.ndim != 3 or points.ndim != 3 or points.shape[2] != 2 or len(labels) != len(points):
        raise ShapeError(
            f"Labels must be (N, H, W) and points (N, L, 2), not {labels.shape} and {points.shape}."
        )
    height, width = labels.shape[1:]
    x, y = np.moveaxis(np.floor(points + 0.5), -1, 0)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    rows, columns = (np.where(inside, v, 0).astype(np.int64) for v in (y, x))
    found = labels[np.arange(len(labels))[:, None], rows, columns].astype(np.int64)
    return np.where(inside, found, OUTSIDE)


def part_centroids(labels: ArrayLike, k: int) -> np.ndarray:
    """Mean position of each part's pixels.

    Args:
        labels: ``(N, H, W)`` integers 0..k, 0 background.
        k: number of parts.

    Returns:
        ``(N, k, 2)`` float64 x, y in pixels; NaN where a picture lacks the part.

    Raises:
        UsageError: a label above k, or below 0.
    """
    labels = np.asarray(labels)
    if labels.size and not 0 <= labels.min() <= labels.max() <= k:
        raise UsageError(f"Labels {labels.min()}..{labels.max()} do not fit k={k}: they must lie in 0..{k}.")
    _, height, width = labels.shape
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    centroids = np.empty((len(labels), k, 2))
    for picture, centroid in zip(labels.reshape(len(labels), -1).astype(np.int64), centroids, strict=True):
        counts, sum_x, sum_y = (np.bincount(picture, weights, k + 1)[1:] for weights in (None, x, y))
        with np.errstate(invalid="ignore"):
            centroid[:] = np.stack([sum_x / counts, sum_y / counts], axis=1)
    return centroids


class LandmarkRegression:
    """Landmarks as a linear function, with intercept, of all part centroids: least squares.

    A part that a picture lacks (NaN) takes its mean over the fitting split; a part absent from the whole of
    the fitting split tells nothing. Where centroids are collinear, the solution of least norm is taken.

    Args:
        centroids: ``(N, K, 2)``, NaN where absent.
        landmarks: ``(N, L, 2)`` x, y in pixels.

    Raises:
        ShapeError: shapes do not agree.
    """

    def __init__(self, centroids: ArrayLike, landmarks: ArrayLike) -> None:
        centroids, landmarks = np.asarray(centroids, np.float64), np.asarray(landmarks, np.float64)
        if (
            centroids.ndim != 3
            or landmarks.ndim != 3
            or len(centroids) != len(landmarks)
            or not len(centroids)
        ):
            raise ShapeError(
                f"Centroids must be (N, K, 2) and landmarks (N, L, 2), N > 0; "
                f"got {centroids.shape} and {landmarks.shape}."
            )
        present = ~np.isnan(centroids)
        self.mean = np.where(present, centroids, 0).sum(0) / np.maximum(present.sum(0), 1)
        self.intercept = landmarks.mean(0)
        features, targets = self._features(centroids), landmarks - self.intercept
        self.weights = np.linalg.lstsq(features, targets.reshape(len(targets), -1), rcond=None)[0]

    def predict(self, centroids: ArrayLike) -> np.ndarray:
        """Landmarks ``(N, L, 2)`` for centroids ``(N, K, 2)``."""
        features = self._features(np.asarray(centroids, np.float64))
        return (features @ self.weights).reshape(-1, *self.intercept.shape) + self.intercept

    def _features(self, centroids: np.ndarray) -> np.ndarray:
        if centroids.shape[1:] != self.mean.shape:
            raise ShapeError(f"Centroids must be (N, {len(self.mean)}, 2), not {centroids.shape}.")
        # An absent part at its mean is 0 once centred.
        return np.nan_to_num(centroids - self.mean).reshape(len(centroids), -1)


def normalized_mean_error(predicted: ArrayLike, landmarks: ArrayLike, scale: ArrayLike) -> float:
    """Mean Euclidean distance between predicted and true landmarks over a length of each picture, in per
    cent.

    Args:
        predicted: ``(N, L, 2)``, pixels.
        landmarks: ``(N, L, 2)``, pixels.
        scale: ``(N,)`` pixels, for example :func:`inter_ocular`.

    Raises:
        ShapeError: shapes do not agree.
    """
    predicted, landmarks, scale = (np.asarray(a, np.float64) for a in (predicted, landmarks, scale))
    if predicted.shape != landmarks.shape or scale.shape != landmarks.shape[:1]:
        raise ShapeError(
            f"Predictions {predicted.shape}, landmarks {landmarks.shape} and scale {scale.shape} differ."
        )
    return float(100 * np.mean(np.linalg.norm(predicted - landmarks, axis=-1) / scale[:, None]))


def inter_ocular(landmarks: ArrayLike, left: int = 0, right: int = 1) -> np.ndarray:
    """Distance ``(N,)`` in pixels between two of the landmarks ``(N, L, 2)``: the eye centres."""
    landmarks = np.asarray(landmarks, np.float64)
    return np.linalg.norm(landmarks[:, left] - landmarks[:, right], axis=-1)
