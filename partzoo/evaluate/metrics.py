"""Compare part labels with true labels: NMI, ARI, kappa, foreground IoU, and how often parts occur.

All of them accumulate image by image, in constant memory. The figures with background and the FG- figures differ in
their predictions: the former use the label map as it is (0 is a cluster like any other), the latter use
:func:`foreground_labels`, the arg-max over the foreground channels alone, so that every point belongs to some
part. At landmarks both count the same points; on masks the FG- figures also leave out the pixels whose true label
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
        """Count one more batch of labels, two arrays of the same shape, and return the table itself.

        Raises:
            ShapeError: the shapes differ.
            UsageError: a label is not an integer within its range.
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
        """Return the sum of two tables, for images that were counted separately.

        Raises:
            ShapeError: the tables count different labels.
        """
        if self.counts.shape != other.counts.shape:
            raise ShapeError(f"Tables of {self.counts.shape} and {other.counts.shape} labels do not add up.")
        return self._of(self.counts + other.counts)

    def without(self, true: int) -> Contingency:
        """Return the table without the pixels whose true label is ``true``, such as the background of masks.

        Raises:
            UsageError: the label is out of range.
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
        """Compute the normalized mutual information, 0..1: mutual information over the mean of the two entropies.

        Equals ``sklearn.metrics.normalized_mutual_info_score`` (arithmetic): 1 if both labellings have a single
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
        """Compute the Rand index adjusted for chance, at most 1, about 0 for independent labellings.

        Equals ``sklearn.metrics.adjusted_rand_score``; Hubert and Arabie, "Comparing partitions", 1985, eq. 5.
        """
        total = int(self.counts.sum())
        # Squares of more than 3e9 pixels overflow int64, but not Python's integers.
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
        """Compute Cohen's kappa: agreement beyond chance, at most 1, 0 for chance; labels mean the same on both sides.

        Equals ``sklearn.metrics.cohen_kappa_score``: NaN if chance alone always agrees (one label, or no counts).
        Cohen, "A coefficient of agreement for nominal scales", 1960, eq. 1.

        Raises:
            ShapeError: the numbers of true and predicted labels differ.
        """
        rows, columns = self.counts.shape
        if rows != columns:
            raise ShapeError(f"Kappa compares equal labels; this table has {rows} true and {columns} predicted.")
        total, agreed = int(self.counts.sum()), int(self.counts.trace())
        chance = sum(int(a) * int(b) for a, b in zip(self.counts.sum(0), self.counts.sum(1), strict=True))
        beyond = total**2 - chance
        return (agreed * total - chance) / beyond if beyond else float("nan")


class ForegroundIoU:
    """The intersection over union of true and predicted foreground, averaged over images and updated batch by batch."""

    def __init__(self) -> None:
        self.total, self.images = 0.0, 0

    def update(self, true: ArrayLike, pred: ArrayLike) -> ForegroundIoU:
        """Count one more batch of masks ``(N, H, W)``, True in the foreground, and return the accumulator itself.

        An image without foreground in both counts as 1.

        Raises:
            ShapeError: the masks differ in shape, or are not (N, H, W).
        """
        true, pred = np.asarray(true, bool), np.asarray(pred, bool)
        if true.shape != pred.shape or true.ndim != 3:
            raise ShapeError(f"Masks must be two equal (N, H, W), not {true.shape} and {pred.shape}.")
        both, either = (true & pred).sum((1, 2)), (true | pred).sum((1, 2))
        self.total += float(np.where(either, both / np.maximum(either, 1), 1).sum())
        self.images += len(true)
        return self

    def iou(self) -> float:
        """Return the mean so far, 0..1; NaN before the first image."""
        return self.total / self.images if self.images else float("nan")


class Presence:
    """The share of images in which each part occurs, updated batch by batch.

    Args:
        k: number of parts.
    """

    def __init__(self, k: int) -> None:
        self.counts, self.images = np.zeros(k, dtype=np.int64), 0

    def update(self, labels: ArrayLike) -> Presence:
        """Count one more batch of label maps ``(N, H, W)``, 0 background, 1..k parts; return the accumulator itself.

        Raises:
            UsageError: a label is not an integer in 0..k.
        """
        for image in np.asarray(labels):
            found = np.bincount(_checked(image, len(self.counts) + 1, "part"), minlength=len(self.counts) + 1)
            self.counts += found[1:] > 0
            self.images += 1
        return self

    def shares(self) -> np.ndarray:
        """Return the shares so far, ``(k,)``, 0..1; NaN before the first image."""
        return self.counts / self.images if self.images else np.full(len(self.counts), np.nan)


def stability(labellings: Sequence[Iterable[ArrayLike]], k: int) -> tuple[float, float]:
    """Compute how similar the labellings from several seeds are: mean NMI and mean ARI over all pairs of seeds.

    Each pair's pixels are pooled over the images; background is a label like any other. The numbering of parts may
    differ.

    Args:
        labellings: label maps of each seed, image by image in the same order; arrays ``(N, H, W)``, or
            iterables of ``(H, W)`` maps of any sizes, which are read one image at a time.
        k: number of parts; labels are 0..k.

    Returns:
        NMI and ARI, 1 for equal labellings.

    Raises:
        UsageError: there are fewer than two seeds, unequal numbers of images, or a label out of range.
        ShapeError: maps of one image differ in size.
    """
    if len(labellings) < 2:
        raise UsageError(f"Stability compares the labellings of two seeds or more, not {len(labellings)}.")
    tables = {pair: Contingency(k + 1, k + 1) for pair in combinations(range(len(labellings)), 2)}
    for number, maps in enumerate(zip_longest(*labellings)):
        if any(each is None for each in maps):
            raise UsageError(f"Every seed must label the same images; some end after {number}, others continue.")
        for (one, other), table in tables.items():
            table.update(maps[one], maps[other])
    nmi, ari = zip(*((table.nmi(), table.ari()) for table in tables.values()), strict=True)
    return float(np.mean(nmi)), float(np.mean(ari))


def foreground_labels(scores: ArrayLike, axis: int = 0) -> np.ndarray:
    """Return the best part of every pixel, ignoring the background: the predictions of the FG- figures.

    Args:
        scores: scores of background and K parts along ``axis``, background first; for example ``(K + 1, H, W)``.
        axis: the axis of the parts.

    Returns:
        Labels 1..K as int64, without that axis; ties go to the lower part.

    Raises:
        ShapeError: the scores have no foreground channel.
    """
    scores = np.asarray(scores)
    if scores.shape[axis] < 2:
        raise ShapeError(f"Scores {scores.shape} hold no foreground channel along axis {axis}.")
    return 1 + np.delete(scores, 0, axis=axis).argmax(axis=axis)


def labels_by_class(labels: ArrayLike, categories: ArrayLike, k: int, *, collide: bool = False) -> np.ndarray:
    """Make part labels distinct across classes: part ``p`` of class ``c`` becomes ``c * k + p``; background stays 0.

    Args:
        labels: ``(N, ...)`` integers 0..k.
        categories: ``(N,)`` class of each image, from 0.
        k: number of parts of a class.
        collide: whether to compute PartImageNet's figures as PartFormer's code does. There the background is the last
            label K of 0..K and only parts are offset, so part 0 of class 1 falls on K: its pixels count as background.
            Use it only to compare with published figures.

    Returns:
        Labels 0..(classes * k) as int64, in the shape of ``labels``.

    Raises:
        ShapeError: the number of images and of categories differ.
        UsageError: a label or category is out of range.
    """
    labels, categories = np.asarray(labels), np.asarray(categories)
    if categories.ndim != 1 or labels.shape[:1] != categories.shape:
        raise ShapeError(f"Labels {labels.shape} need one category for each image, not {categories.shape}.")
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
