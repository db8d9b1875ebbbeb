"""Look up the part at each landmark, and predict landmarks from part centroids."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from partzoo.errors import ShapeError, UsageError

OUTSIDE = -1


def labels_at(labels: ArrayLike, points: ArrayLike) -> np.ndarray:
    """Return the label of the pixel nearest to each point.

    Args:
        labels: ``(N, H, W)`` integers.
        points: ``(N, L, 2)`` x, y in pixels; pixel (row, column) is the point (column, row).

    Returns:
        ``(N, L)`` int64; -1 if the point is outside the image.

    Raises:
        ShapeError: the shapes do not agree.
    """
    labels, points = np.asarray(labels), np.asarray(points, dtype=np.float64)
    if labels.ndim != 3 or points.ndim != 3 or points.shape[2] != 2 or len(labels) != len(points):
        raise ShapeError(f"Labels must be (N, H, W) and points (N, L, 2), not {labels.shape} and {points.shape}.")
    height, width = labels.shape[1:]
    x, y = np.moveaxis(np.floor(points + 0.5), -1, 0)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    rows, columns = (np.where(inside, v, 0).astype(np.int64) for v in (y, x))
    found = labels[np.arange(len(labels))[:, None], rows, columns].astype(np.int64)
    return np.where(inside, found, OUTSIDE)


def labels_on_grid(labels: ArrayLike, points: ArrayLike, side: float) -> np.ndarray:
    """Return the label of the grid cell under each point, as in the published code of MPAE and PartFormer.

    The cell is ``rint(p / side * G - 1/2)``, ties to even. Outside the frame the published code takes the maps to be
    zero, and their arg-max to be the first foreground channel; there the label is 1, with and without background.

    Args:
        labels: ``(N, G, G)`` integers, arg-max of maps over a square frame.
        points: ``(N, L, 2)`` x, y in the frame's pixels, measured from its border.
        side: height and width of the frame in pixels.

    Returns:
        ``(N, L)`` int64.

    Raises:
        ShapeError: the shapes do not agree.

    Source: ``grid_sample`` with mode nearest, ``align_corners=False`` and zero padding, at ``2 p / side - 1``.
    """
    labels = np.asarray(labels)
    if labels.ndim == 3 and labels.shape[1] != labels.shape[2]:
        raise ShapeError(f"The grid must be square, not {labels.shape[1:]}.")
    found = labels_at(labels, np.rint(np.asarray(points, np.float64) / side * labels.shape[-1] - 0.5))
    return np.where(found == OUTSIDE, 1, found)


def part_centroids(labels: ArrayLike, k: int) -> np.ndarray:
    """Compute the mean position of each part's pixels.

    Args:
        labels: ``(N, H, W)`` integers 0..k, 0 background.
        k: number of parts.

    Returns:
        ``(N, k, 2)`` float64 x, y in pixels; NaN if the part is absent from the image.

    Raises:
        UsageError: a label is above k or below 0.
    """
    labels = np.asarray(labels)
    if labels.size and not 0 <= labels.min() <= labels.max() <= k:
        raise UsageError(f"Labels {labels.min()}..{labels.max()} do not fit k={k}: they must lie in 0..{k}.")
    _, height, width = labels.shape
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    centroids = np.empty((len(labels), k, 2))
    for image, centroid in zip(labels.reshape(len(labels), -1).astype(np.int64), centroids, strict=True):
        counts, sum_x, sum_y = (np.bincount(image, weights, k + 1)[1:] for weights in (None, x, y))
        with np.errstate(invalid="ignore"):
            centroid[:] = np.stack([sum_x / counts, sum_y / counts], axis=1)
    return centroids


def soft_centroids(maps: ArrayLike) -> np.ndarray:
    """Compute the mean position of each part, weighted by its map.

    Args:
        maps: ``(N, K + 1, h, w)`` probabilities, background first.

    Returns:
        ``(N, K, 2)`` float64 x, y in map cells, the first cell's centre at 0; NaN if a map is all zeros.

    Raises:
        ShapeError: the maps do not have that shape.
    """
    maps = _parts_of(maps)
    centroids = []
    for across in (2, 3):
        profile = maps.sum(across, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            centroids.append(profile @ np.arange(profile.shape[2]) / profile.sum(2))
    return np.stack(centroids, axis=-1)


def active_parts(maps: ArrayLike, threshold: float) -> np.ndarray:
    """Return ``(N, K)`` bool: whether each part's highest value in maps ``(N, K + 1, h, w)`` exceeds a threshold.

    Raises:
        ShapeError: the maps do not have that shape.
    """
    return _parts_of(maps).max((2, 3)) > threshold


def _parts_of(maps: ArrayLike) -> np.ndarray:
    maps = np.asarray(maps)
    if maps.ndim != 4 or maps.shape[1] < 2:
        raise ShapeError(f"Maps must be (N, K + 1, h, w), background first, not {maps.shape}.")
    return maps[:, 1:]


class LandmarkRegression:
    """Linear regression from all part centroids to the landmarks, by least squares on the fitting split.

    A landmark is fitted on the images that show it. A part that is absent from an image takes its mean over these
    images; a part that is absent from all of them has no influence. If centroids are collinear, the solution of
    least norm is used.

    Args:
        centroids: ``(N, K, 2)``, NaN where absent.
        landmarks: ``(N, L, 2)`` x, y in pixels.
        visible: ``(N, L)`` bool; None means that all are visible.
        active: ``(N, K)`` bool, parts that count as present; None counts all whose centroid is not NaN.
        standardize: False centres with the present parts alone, which is least squares with intercept. True follows the
            published code: z-scores from all centroids, including inactive parts; absent parts are 0; no intercept.
            The two differ only if parts are inactive or centroids are collinear.

    Raises:
        ShapeError: the shapes do not agree.
        UsageError: a landmark is visible in no image.

    Source: PartFormer, section 4.2; ``standardize`` as in its code for CelebA and, with ``visible`` and ``active``, in
        PDiscoFormer's code for CUB.
    """

    def __init__(
        self,
        centroids: ArrayLike,
        landmarks: ArrayLike,
        visible: ArrayLike | None = None,
        *,
        active: ArrayLike | None = None,
        standardize: bool = False,
    ) -> None:
        centroids, landmarks = np.asarray(centroids, np.float64), np.asarray(landmarks, np.float64)
        if centroids.ndim != 3 or landmarks.ndim != 3 or len(centroids) != len(landmarks) or not len(centroids):
            raise ShapeError(
                f"Centroids must be (N, K, 2) and landmarks (N, L, 2), N > 0; "
                f"got {centroids.shape} and {landmarks.shape}."
            )
        self.parts, self.landmarks = centroids.shape[1], landmarks.shape[1]
        present = self._present(centroids, active)
        if visible is None:
            # All landmarks are visible everywhere, so one fit serves them all.
            self.fits = [(slice(None), _Line(centroids, present, landmarks, standardize))]
            return
        visible = _visible(visible, landmarks)
        if not visible.any(0).all():
            raise UsageError(
                f"Landmark {visible.any(0).argmin()} is visible in none of the {len(visible)} fitting images; "
                f"fit on more."
            )
        self.fits = [
            (slice(i, i + 1), _Line(centroids[seen], present[seen], landmarks[seen, i : i + 1], standardize))
            for i, seen in enumerate(visible.T)
        ]

    def predict(self, centroids: ArrayLike, active: ArrayLike | None = None) -> np.ndarray:
        """Predict landmarks ``(N, L, 2)`` for centroids ``(N, K, 2)`` and, if parts can be inactive, ``active``.

        Raises:
            ShapeError: the shapes do not agree with those of the fitting split.
        """
        centroids = np.asarray(centroids, np.float64)
        present = self._present(centroids, active)
        predicted = np.empty((len(centroids), self.landmarks, 2))
        for which, line in self.fits:
            predicted[:, which] = line(centroids, present)
        return predicted

    def _present(self, centroids: np.ndarray, active: ArrayLike | None) -> np.ndarray:
        if centroids.ndim != 3 or centroids.shape[1:] != (self.parts, 2):
            raise ShapeError(f"Centroids must be (N, {self.parts}, 2), not {centroids.shape}.")
        present = ~np.isnan(centroids).any(2)
        if active is not None:
            active = np.asarray(active, bool)
            if active.shape != present.shape:
                raise ShapeError(f"active must be {present.shape} like the centroids, not {active.shape}.")
            present &= active
        return present


class _Line:
    """A least-squares fit from part centroids to landmarks that share one set of visible images."""

    def __init__(self, centroids: np.ndarray, present: np.ndarray, landmarks: np.ndarray, standardize: bool) -> None:
        counted = ~np.isnan(centroids) if standardize else np.repeat(present[..., None], 2, axis=2)
        number = np.maximum(counted.sum(0), 1)
        self.mean = np.where(counted, centroids, 0).sum(0) / number
        spread = np.sqrt(np.where(counted, (centroids - self.mean) ** 2, 0).sum(0) / number)
        # A part that never moves carries no information; its rounding errors must not be scaled up.
        self.scale = np.where(spread > 1e-9, spread if standardize else 1, np.inf)
        self.intercept = landmarks.mean(0)
        targets = (landmarks - self.intercept).reshape(len(landmarks), -1)
        self.weights = np.linalg.lstsq(self._features(centroids, present), targets, rcond=None)[0]

    def __call__(self, centroids: np.ndarray, present: np.ndarray) -> np.ndarray:
        return (self._features(centroids, present) @ self.weights).reshape(-1, *self.intercept.shape) + self.intercept

    def _features(self, centroids: np.ndarray, present: np.ndarray) -> np.ndarray:
        scaled = (centroids - self.mean) / self.scale
        return np.where(present[..., None], scaled, 0).reshape(len(centroids), -1)


def landmark_distances(
    predicted: ArrayLike, landmarks: ArrayLike, scale: ArrayLike, visible: ArrayLike | None = None
) -> np.ndarray:
    """Compute the distance of each predicted landmark from the true one, in per cent of ``scale``.

    Args:
        predicted: ``(N, L, 2)``, pixels.
        landmarks: ``(N, L, 2)``, pixels.
        scale: ``(N,)`` pixels, for example :func:`inter_ocular`; ``(N, 2)`` divides x and y separately.
        visible: ``(N, L)`` bool, landmarks that count; None counts all.

    Returns:
        ``(N, L)``, NaN where a landmark does not count.

    Raises:
        ShapeError: the shapes do not agree.
        UsageError: no landmark counts, or an image that counts has a scale of 0.
    """
    predicted, landmarks, scale = (np.asarray(a, np.float64) for a in (predicted, landmarks, scale))
    if predicted.shape != landmarks.shape or scale.shape not in (landmarks.shape[:1], (*landmarks.shape[:1], 2)):
        raise ShapeError(f"Predictions {predicted.shape}, landmarks {landmarks.shape} and scale {scale.shape} differ.")
    scale = np.broadcast_to(scale.reshape(len(scale), 1, -1), landmarks.shape)
    seen = np.ones(landmarks.shape[:2], bool) if visible is None else _visible(visible, landmarks)
    if not seen.any() or not (scale[seen] > 0).all():
        raise UsageError("An error needs a visible landmark, and a scale above 0 in every image that shows one.")
    found = np.full(landmarks.shape[:2], np.nan)
    found[seen] = 100 * np.linalg.norm((predicted - landmarks)[seen] / scale[seen], axis=-1)
    return found


def normalized_mean_error(
    predicted: ArrayLike, landmarks: ArrayLike, scale: ArrayLike, visible: ArrayLike | None = None
) -> float:
    """Compute the mean of :func:`landmark_distances` over all landmarks that count, in per cent.

    Source: PartFormer, section 4.2, eq. 10; images that show fewer landmarks count less, as in PDiscoFormer's code.
    """
    return float(np.nanmean(landmark_distances(predicted, landmarks, scale, visible)))


def _visible(visible: ArrayLike, landmarks: np.ndarray) -> np.ndarray:
    visible = np.asarray(visible, bool)
    if visible.shape != landmarks.shape[:2]:
        raise ShapeError(f"visible must be {landmarks.shape[:2]} like the landmarks, not {visible.shape}.")
    return visible


def inter_ocular(landmarks: ArrayLike, left: int = 0, right: int = 1) -> np.ndarray:
    """Return the distance ``(N,)`` in pixels between two of the landmarks ``(N, L, 2)``, by default the eye centres."""
    landmarks = np.asarray(landmarks, np.float64)
    return np.linalg.norm(landmarks[:, left] - landmarks[:, right], axis=-1)
