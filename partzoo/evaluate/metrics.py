"""How well one labelling explains another (NMI, ARI, kappa), how much of the foreground is found, which parts occur.

All of them are filled image by image, in constant memory. With background and FG- variants differ in the
predictions: the first takes the label map as it is (0 is a cluster like any other), the second takes
:func:`foreground_labels`, the arg-max over the foreground channels alone, so that every point belongs to some
part. At landmarks both count the same points; on masks the FG- variant also leaves out the pixels whose truth
is background (:meth:`Contingency.without`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, zip_longest

import numpy as np
from numpy.typing import ArrayLike

from partzoo.errors import ShapeError, UsageError


class Contingency:
    """Counts of (true, predicted) label pairs; constant memory for any number of images.

    Args:
        n_true: true labels are 0..n_true-1.
        n_pred: predicted labels are 0..n_pred-1.

    Attributes:
        counts: ``(n_true, n_pred)`` int64.
    """

    def __init__(self, n_true: int, n_pred: int) -> None:
        if n_true < 1 or n_pred < 1:
            raise UsageError(f"A contingency table needs at least one label each way, not {n_true} x {n_pred}.")
        self.counts = np.zeros((n_true, n_pred), dtype=np.int64)

    def update(self, true: ArrayLike, pred: ArrayLike) -> Contingency:
        """Count one more batch of labels, of any but the same shape; returns the table itself.

        Raises:
            ShapeError: the shapes differ.
            UsageError: a label is not an integer of its range.
        """
        true, pred = np.asarray(true), np.asarray(pred)
        if true.shape != pred.shape:
            raise ShapeError(f"True labels are {true.shape} and predicted labels {pred.shape}: they must agree.")
        n_true, n_pred = self.counts.shape
        true, pred = _checked(true, n_true, "true"), _checked(pred, n_pred, "predicted")
        pairs = np.bincount(true * n_pred + pred, minlength=n_true * n_pred)
        self.counts += pairs.reshape(n_true, n_pred)
        return self

    def __add__(self, other: Contingency) -> Contingency:
        """The table of both tables' images, for images that were counted apart.

        Raises:
            ShapeError: the tables count different labels.
        """
        if self.counts.shape != other.counts.shape:
            raise ShapeError(f"Tables of {self.counts.shape} and {other.counts.shape} labels do not add up.")
        return self._of(self.counts + other.counts)

    def without(self, true: int) -> Contingency:
        """The table with all that is truly ``true`` left out, such as the background of masks.

        Raises:
            UsageError: there is no such label.
        """
        if not 0 <= true < len(self.counts):
            raise UsageError(f"True label {true} cannot be left out: labels are 0..{len(self.counts) - 1}.")
        return self._of(np.where(np.arange(len(self.counts))[:, None] == true, 0, self.counts))

    @staticmethod
    def _of(counts: np.ndarray) -> Contingency:
        table = Contingency(*counts.shape)
        table.counts = counts
        return table

    def nmi(self) -> float:
        """Normalized mutual information, 0..1: mutual information over the mean of the two entropies.

        As ``sklearn.metrics.normalized_mutual_info_score`` (arithmetic): 1 where both labellings are one
        cluster.
        """
        counts = self.counts[self.counts.any(1)][:, self.counts.any(0)].astype(np.float64)
        if max(counts.shape) <= 1:
            return 1.0
        joint = counts / counts.sum()
        true, pred = joint.sum(1), joint.sum(0)
        seen = joint > 0
        information = np.sum(joint[seen] * np.log(joint[seen] / np.outer(true, pred)[seen]))
        if information <= np.finfo(np.float64).eps:
            return 0.0
        return float(information / ((_entropy(true) + _entropy(pred)) / 2))

    def ari(self) -> float:
        """Rand index adjusted for chance, at most 1, about 0 for independent labellings.

        As ``sklearn.metrics.adjusted_rand_score``; Hubert and Arabie, "Comparing partitions", 1985, eq. 5.
        """
        total = int(self.counts.sum())
        # Squares of more than 3e9 pixels overflow int64: Python's integers do not.
        kind = np.int64 if total < 3_000_000_000 else object
        together, true, pred = (
            int(np.square(counts.astype(kind)).sum()) - total
            for counts in (self.counts, self.counts.sum(1), self.counts.sum(0))
        )
        pairs = total * (total - 1)
        if together == true == pred:
            return 1.0
        return 2 * (together * pairs - true * pred) / ((true + pred) * pairs - 2 * true * pred)

    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance, at most 1, 0 for chance; labels mean the same both ways.

        As ``sklearn.metrics.cohen_kappa_score``: NaN where chance alone agrees always (one label, or no counts).
        Cohen, "A coefficient of agreement for nominal scales", 1960, eq. 1.

        Raises:
            ShapeError: true and predicted labels differ in number.
        """
        rows, columns = self.counts.shape
        if rows != columns:
            raise ShapeError(f"Kappa compares equal labels; this table has {rows} true and {columns} predicted.")
        total, agreed = int(self.counts.sum()), int(self.counts.trace())
        chance = sum(int(a) * int(b) for a, b in zip(self.counts.sum(0), self.counts.sum(1), strict=True))
        beyond = total**2 - chance
        return (agreed * total - chance) / beyond if beyond else float("nan")


class ForegroundIoU:
    """Intersection over union of true and predicted foreground, mean over images."""

    def __init__(self) -> None:
        self.total, self.images = 0.0, 0

    def update(self, true: ArrayLike, pred: ArrayLike) -> ForegroundIoU:
        """Count one more batch of masks ``(N, H, W)``, True in the foreground; returns itself.

        An image without foreground in either counts 1.

        Raises:
            ShapeError: the masks are not two equal (N, H, W).
        """
        true, pred = np.asarray(true, bool), np.asarray(pred, bool)
        if true.shape != pred.shape or true.ndim != 3:
            raise ShapeError(f"Masks must be two equal (N, H, W), not {true.shape} and {pred.shape}.")
        both, either = (true & pred).sum((1, 2)), (true | pred).sum((1, 2))
        self.total += float(np.where(either, both / np.maximum(either, 1), 1).sum())
        self.images += len(true)
        return self

    def iou(self) -> float:
        """Mean so far, 0..1; NaN before the first image."""
        return self.total / self.images if self.images else float("nan")


class Presence:
    """Share of images in which each part occurs.

    Args:
        k: number of parts.
    """

    def __init__(self, k: int) -> None:
        self.counts, self.images = np.zeros(k, dtype=np.int64), 0

    def update(self, labels: ArrayLike) -> Presence:
        """Count one more batch of label maps ``(N, H, W)``, 0 background, 1..k parts; returns itself.

        Raises:
            UsageError: a label is not an integer 0..k.
        """
        for image in np.asarray(labels):
            found = np.bincount(_checked(image, len(self.counts) + 1, "part"), minlength=len(self.counts) + 1)
            self.counts += found[1:] > 0
            self.images += 1
        return self

    def shares(self) -> np.ndarray:
        """``(k,)`` so far, 0..1; NaN before the first image."""
        return self.counts / self.images if self.images else np.full(len(self.counts), np.nan)


def stability(labellings: Sequence[Iterable[ArrayLike]], k: int) -> tuple[float, float]:
    """How alike the labellings of several seeds are: mean NMI and mean ARI over all pairs of seeds.

    Each pair's pixels are pooled over the images; background is a label like any other. Parts need not be
    numbered alike.

    Args:
        labellings: for each seed its label maps, image by image in one order; arrays ``(N, H, W)``, or
            iterables of ``(H, W)`` maps of any sizes, of which one image at a time is read.
        k: number of parts; labels are 0..k.

    Returns:
        NMI and ARI, 1 for equal labellings.

    Raises:
        UsageError: fewer than two seeds, unequal numbers of images, or a label out of range.
        ShapeError: maps of one image differ in size.
    """
    if len(labellings) < 2:
        raise UsageError(f"Stability compares the labellings of two seeds or more, not {len(labellings)}.")
    tables = {pair: Contingency(k + 1, k + 1) for pair in combinations(range(len(labellings)), 2)}
    for number, maps in enumerate(zip_longest(*labellings)):
        if any(each is None for each in maps):
            raise UsageError(f"Every seed must label the same images; some end after {number}, others go on.")
        for (one, other), table in tables.items():
            table.update(maps[one], maps[other])
    nmi, ari = zip(*((table.nmi(), table.ari()) for table in tables.values()), strict=True)
    return float(np.mean(nmi)), float(np.mean(ari))


def foreground_labels(scores: ArrayLike, axis: int = 0) -> np.ndarray:
    """Best part of every pixel with the background left out: what the FG- variants take for predictions.

    Args:
        scores: K + 1 part scores along ``axis``, background first; for example ``(K + 1, H, W)``.
        axis: the axis of the parts.

    Returns:
        int64 without that axis, values 1..K; ties go to the lower part.

    Raises:
        ShapeError: there is no foreground channel.
    """
    scores = np.asarray(scores)
    if scores.shape[axis] < 2:
        raise ShapeError(f"Scores {scores.shape} hold no foreground channel along axis {axis}.")
    return 1 + np.delete(scores, 0, axis=axis).argmax(axis=axis)


def labels_by_class(labels: ArrayLike, categories: ArrayLike, k: int, *, collide: bool = False) -> np.ndarray:
    """Part labels that differ from class to class: part p of class c becomes c k + p; background stays 0.

    Args:
        labels: ``(N, ...)`` integers 0..k.
        categories: ``(N,)`` class of each image, from 0.
        k: number of parts of a class.
        collide: as PartFormer's code computes PartImageNet's figures. There the background is the last label K of
            0..K and only parts are offset, so that part 0 of class 1 falls on K: its pixels count as background.
            For agreement with published figures only.

    Returns:
        int64 of the labels' shape, 0..(classes * k).

    Raises:
        ShapeError: the number of images and of categories differ.
        UsageError: a label or category is out of range.
    """
    labels, categories = np.asarray(labels), np.asarray(categories)
    if categories.ndim != 1 or labels.shape[:1] != categories.shape:
        raise ShapeError(f"Labels {labels.shape} need one category an image, not {categories.shape}.")
    if categories.size and (categories.dtype.kind not in "iu" or categories.min() < 0):
        raise UsageError(f"Categories must be integers from 0; got {categories.dtype} {categories.min()}.")
    parts = _checked(labels, k + 1, "part").reshape(labels.shape)
    categories = categories.astype(np.int64).reshape(-1, *[1] * (labels.ndim - 1))
    lost = (parts == 0) | (collide & (categories == 1) & (parts == 1))
    return np.where(lost, 0, parts + k * categories)


def _checked(labels: np.ndarray, count: int, which: str) -> np.ndarray:
    if labels.size and (labels.dtype.kind not in "iub" or labels.min() < 0 or labels.max() >= count):
        raise UsageError(
            f"{which} labels must be integers 0..{count - 1}; got {labels.dtype} {labels.min()}..{labels.max()}."
        )
    return labels.astype(np.int64).ravel()


def _entropy(p: np.ndarray) -> float:
    return float(-np.sum(p * np.log(p)))
