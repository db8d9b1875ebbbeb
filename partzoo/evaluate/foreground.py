"""Compare predicted foregrounds with true masks: accuracy, IoU, maximal F, mean absolute error, boundary F."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from partzoo.data.masks import MaskedImage, MaskedSet, find_set
from partzoo.discovery.finder import Finder
from partzoo.errors import ImageError, UsageError, require
from partzoo.evaluate.protocols.masks import ForegroundProtocol
from partzoo.images.opening import OpenedImage
from partzoo.progress import ProgressCallback
from partzoo.skipping import PassOver

Scorer = Callable[[np.ndarray], tuple[np.ndarray, float]]  # from an image to its foreground score (H, W) and certainty
BETA_SQUARED = 0.3
SELFMASK = 0.3**2  # beta squared in the published code of SelfMask and FOUND, which squares 0.3 once more
THRESHOLDS = np.arange(1, 256) / 256
BOX_SHARE = 2 / 3  # share of each side that the centred box covers
TOLERANCE = 0.008  # largest distance of matching outlines, as a share of the image's diagonal
FAILED = 0.5  # IoU below which a foreground is a failure


def foreground_figures(
    scorer: Scorer,
    protocol: ForegroundProtocol,
    data: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    progress: ProgressCallback | None = None,
    pass_over: PassOver | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Compare predicted foregrounds with the masks of a protocol's images, each at its original size.

    Args:
        scorer: function that scores an image's pixels; at least 0.5 means foreground.
        protocol: protocol that names the set and the split.
        data: folder that contains the set.
        split: split to report on instead of the protocol's.
        limit: largest number of images, evenly spaced; None uses all.
        progress: function that is called with the name of the work, the amount done, and the total.
        pass_over: function that is called for each image that is damaged or has a damaged mask, which is then skipped;
            None raises the error.

    Returns:
        One run with its ``metrics`` in per cent (see :class:`ForegroundTally`), and the number of images.

    Raises:
        ImageError: no image can be used, or one of them cannot and there is no ``pass_over``.
    """
    images = MaskedSet(find_set(data, protocol.name), split or protocol.split)
    count = min(limit or len(images), len(images))
    tally = ForegroundTally()
    for done in range(count):
        index = done * len(images) // count
        try:
            example = images[index]
        except (ImageError, UsageError) as error:
            if pass_over is None:
                raise
            pass_over(images.name(index), error)
        else:
            tally.update(example, *scorer(example.pixels))
        if progress:
            progress("report", done + 1, count)
    if not tally.rows:
        raise ImageError(f"None of the {count} images of {images.path} can be used.")
    return [{"k": None, "seed": None, "metrics": tally.figures()}], len(tally.rows)


def finder_scorer(finder: Finder) -> Scorer:
    """Return a function that computes a finder's foreground, refined along the image's edges, and its quality."""

    def score(pixels: np.ndarray) -> tuple[np.ndarray, float]:
        look = finder.look(OpenedImage(pixels))
        return finder.foreground(look, pixels.shape[:2]), look.quality

    return score


def box_scorer(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Score a centred box, two thirds as wide and high as the image, as foreground: a floor for comparison."""
    score = np.zeros(pixels.shape[:2], np.float32)
    rows, columns = (slice(round(n * (1 - BOX_SHARE) / 2), round(n * (1 + BOX_SHARE) / 2)) for n in pixels.shape[:2])
    score[rows, columns] = 1
    return score, 1.0


@dataclass
class ForegroundTally:
    """Foreground figures, updated image by image.

    - ``accuracy``, ``iou`` and ``boundary_f`` for the score cut at 0.5, and ``mae`` for the score itself: means over
      images.
    - ``max_f``: the F-measure with beta² = 0.3, averaged over images, at the one of 255 thresholds that is best for the
      whole set (TokenCut's code); ``max_f_each``: each image at its best threshold; ``max_f_selfmask``: as ``max_f``
      with beta² = 0.09, which the code of SelfMask and FOUND reports as maximal F.
    - ``failures``: share of images with an IoU below 0.5; ``failure_auroc``: how well a low quality predicts failures,
      if there are any.

    Source: the protocol of TokenCut (CVPR 2022), SelfMask (CVPRW 2022) and FOUND (CVPR 2023); boundary F of Perazzi et
    al., "A benchmark dataset and evaluation methodology for video object segmentation", CVPR 2016.
    """

    rows: list[tuple[float, ...]] = field(default_factory=list)
    curves: list[np.ndarray] = field(default_factory=list)
    selfmask: list[float] = field(default_factory=list)
    qualities: list[float] = field(default_factory=list)

    def update(self, example: MaskedImage, score: np.ndarray, quality: float) -> None:
        """Add one image's score ``(H, W)``, 0..1."""
        true, found = example.mask > 0, score >= 0.5
        union = (true | found).sum()
        iou = (true & found).sum() / union if union else 1.0
        self.rows.append((float((true == found).mean()), float(iou), float(np.abs(score - true).mean()),
                          boundary_f(true, found)))  # fmt: skip
        precision, recall = precision_recall(true, score)
        self.curves.append(f_measure(precision, recall))
        self.selfmask.append(float(f_measure(precision, recall, SELFMASK).max()))
        self.qualities.append(quality)

    def figures(self) -> dict[str, float]:
        """Return all figures so far, in per cent."""
        accuracy, iou, error, boundary = 100 * np.mean(self.rows, axis=0)
        failed = np.array([row[1] for row in self.rows]) < FAILED
        found = {
            "accuracy": accuracy,
            "iou": iou,
            "max_f": 100 * np.mean(self.curves, axis=0).max(),
            "max_f_each": 100 * np.max(self.curves, axis=1).mean(),
            "max_f_selfmask": 100 * np.mean(self.selfmask),
            "mae": error,
            "boundary_f": boundary,
            "failures": 100 * failed.mean(),
        }
        if 0 < failed.sum() < len(failed):
            roc = require("sklearn.metrics", "eval").roc_auc_score
            found["failure_auroc"] = 100 * roc(failed, -np.array(self.qualities))
        return {name: float(value) for name, value in found.items()}


def precision_recall(true: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute precision and recall ``(255,)`` of a score ``(H, W)`` at 255 thresholds; undefined values are 0."""
    steps = np.digitize(score.ravel(), THRESHOLDS)  # number of thresholds that a pixel reaches
    at_least = [np.bincount(steps[chosen], minlength=256)[::-1].cumsum()[::-1][1:] for chosen in (true.ravel(), ...)]
    hits, found = at_least
    return hits / np.maximum(found, 1), hits / max(true.sum(), 1)


def f_measure(precision: np.ndarray, recall: np.ndarray, beta_squared: float = BETA_SQUARED) -> np.ndarray:
    """Compute the weighted harmonic mean of precision and recall; 0 if both are 0."""
    return (1 + beta_squared) * precision * recall / np.maximum(beta_squared * precision + recall, 1e-9)


def boundary_f(true: np.ndarray, found: np.ndarray) -> float:
    """Compare two masks' outlines: the harmonic mean of the shares near the other outline; 1 if neither has one."""
    radius = max(round(TOLERANCE * float(np.hypot(*true.shape))), 1)
    outlines = [_outline(mask) for mask in (true, found)]
    if not any(outline.any() for outline in outlines):
        return 1.0
    dilated = [_dilated(outline, radius) for outline in outlines]
    shares = [
        (outline & near).sum() / max(outline.sum(), 1) for outline, near in zip(outlines, dilated[::-1], strict=True)
    ]
    return float(2 * shares[0] * shares[1] / max(sum(shares), 1e-9))


def _outline(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask's edge, which differ from their right or lower neighbour."""
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    edge[:-1] |= mask[1:] != mask[:-1]
    return edge


def _dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    ndimage = require("scipy.ndimage", "eval")
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return ndimage.binary_dilation(mask, x**2 + y**2 <= radius**2)
