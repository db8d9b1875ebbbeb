"""How well one labelling explains another: NMI and ARI from a contingency table that is filled as pictures
pass.

With background and FG- variants differ only in the predictions: the first takes the label map as it is (0 is
a cluster like any other), the second takes :func:`foreground_labels`, the arg-max over the foreground
channels alone, so that every point belongs to some part. Both count the same points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from partzoo.errors import ShapeError, UsageError


class Contingency:
    """Counts of (true, predicted) label pairs; constant memory for any number of pictures.

    Args:
        n_true: true labels are 0..n_true-1.
        n_pred: predicted labels are 0..n_pred-1.

    Attributes:
        counts: ``(n_true, n_pred)`` int64.
    """

    def __init__(self, n_true: int, n_pred: int) -> None:
        if n_true < 1 or n_pred < 1:
            raise UsageError(
                f"A contingency table needs at least one label each way, not {n_true} x {n_pred}."
            )
        self.counts = np.zeros((n_true, n_pred), dtype=np.int64)

    def update(self, true: ArrayLike, pred: ArrayLike) -> Contingency:
        """Count one more batch of labels, of any but the same shape; returns the table itself.

        Raises:
            ShapeError: the shapes differ.
            UsageError: a label is not an integer of its range.
        """
        true, pred = np.asarray(true), np.asarray(pred)
        if true.shape != pred.shape:
            raise ShapeError(
                f"True labels are {true.shape} and predicted labels {pred.shape}: they must agree."
            )
        n_true, n_pred = self.counts.shape
        true, pred = _checked(true, n_true, "true"), _checked(pred, n_pred, "predicted")
        pairs = np.bincount(true * n_pred + pred, minlength=n_true * n_pred)
        self.counts += pairs.reshape(n_true, n_pred)
        return self

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
        # Python's integers: pairs of 10^10 pixels overflow int64.
        total = int(self.counts.sum())
        together = sum(int(c) ** 2 for c in self.counts.flat) - total
        true = sum(int(c) ** 2 for c in self.counts.sum(1)) - total
        pred = sum(int(c) ** 2 for c in self.counts.sum(0)) - total
        pairs = total * (total - 1)
        if together == true == pred:
            return 1.0
        return 2 * (together * pairs - true * pred) / ((true + pred) * pairs - 2 * true * pred)


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


def _checked(labels: np.ndarray, count: int, which: str) -> np.ndarray:
    if labels.size and (labels.dtype.kind not in "iub" or labels.min() < 0 or labels.max() >= count):
        raise UsageError(
            f"{which} labels must be integers 0..{count - 1}; got {labels.dtype} "
            f"{labels.min()}..{labels.max()}."
        )
    return labels.astype(np.int64).ravel()


def _entropy(p: np.ndarray) -> float:
    return float(-np.sum(p * np.log(p)))
