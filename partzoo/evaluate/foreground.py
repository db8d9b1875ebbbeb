"""How well a foreground agrees with masks: accuracy, IoU, maximal F, mean absolute error, boundary F."""

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
from partzoo.passing_over import PassOver
from partzoo.progress import ProgressCallback

Scorer = Callable[[np.ndarray], tuple[np.ndarray, float]]  # an image -> its foreground's score (H, W), and how sure
BETA_SQUARED = 0.3
SELFMASK = 0.3**2  # what the published code of SelfMask and FOUND takes for it: it squares 0.3 once more
THRESHOLDS = np.arange(1, 256) / 256
BOX_SHARE = 2 / 3  # of each side
TOLERANCE = 0.008  # of the image's diagonal, within which outlines count as one
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
    """Figures of a foreground on a protocol's images, each at its own size.

    Args:
        scorer: what scores an image's pixels, foreground from 0.5 on.
        protocol: which set and split.
        data: the folder that the set lies in.
        split: in place of the protocol's.
        limit: at most this many images, spread evenly.
        progress: called with what is done, how much, and of how much.
        pass_over: called for each image that is damaged or whose mask is; it is then left out. None raises the error.

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
    """What a finder takes for foreground, along the image's edges, and its quality."""

    def score(pixels: np.ndarray) -> tuple[np.ndarray, float]:
        look = finder.look(OpenedImage(pixels))
        return finder.foreground(look, pixels.shape[:2]), look.quality

    return score


def box_scorer(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """The floor that looks at nothing: a centred box of two thirds of each side."""
    score = np.zeros(pixels.shape[:2], np.float32)
    rows, columns = (slice(round(n * (1 - BOX_SHARE) / 2), round(n * (1 + BOX_SHARE) / 2)) for n in pixels.shape[:2])
    score[rows, columns] = 1
    return score, 1.0


@dataclass
class ForegroundTally:
    """Figures gathered image by image.

    - ``accuracy``, ``iou`` and ``boundary_f`` of the score cut at 0.5, and ``mae`` of the score itself: means over
      images.
    - ``max_f``: F with beta squared 0.3, mean over images at the one of 255 thresholds that is best for the set
      (TokenCut's code); ``max_f_each``: each image at its own best threshold; ``max_f_selfmask``: the same with beta
      squared 0.09, which is what the code of SelfMask and FOUND reports as maximal F.
    - ``failures``: share of images with an IoU below 0.5; ``failure_auroc``: how well a low quality predicts them,
      where there are any.

    Source: the protocol of TokenCut (CVPR 2022), SelfMask (CVPRW 2022) and FOUND (CVPR 2023); boundary F of Perazzi et
    al., "A benchmark dataset and evaluation methodology for video object segmentation", CVPR 2016.
    """

    rows: list[tuple[float, ...]] = field(default_factory=list)
    curves: list[np.ndarray] = field(default_factory=list)
    selfmask: list[float] = field(default_factory=list)
    qualities: list[float] = field(default_factory=list)

    def update(self, example: MaskedImage, score: np.ndarray, quality: float) -> None:
        """One image's score ``(H, W)``, 0..1."""
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
        """All figures so far, in per cent."""
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
    """Precision and recall ``(255,)`` of a score ``(H, W)`` at 255 thresholds; 0 where they are not defined."""
    steps = np.digitize(score.ravel(), THRESHOLDS)  # how many thresholds a pixel reaches
    at_least = [np.bincount(steps[chosen], minlength=256)[::-1].cumsum()[::-1][1:] for chosen in (true.ravel(), ...)]
    hits, found = at_least
    return hits / np.maximum(found, 1), hits / max(true.sum(), 1)


def f_measure(precision: np.ndarray, recall: np.ndarray, beta_squared: float = BETA_SQUARED) -> np.ndarray:
    """Weighted harmonic mean of precision and recall; 0 where both are."""
    return (1 + beta_squared) * precision * recall / np.maximum(beta_squared * precision + recall, 1e-9)


def boundary_f(true: np.ndarray, found: np.ndarray) -> float:
    """Harmonic mean of the shares of each outline that lie near the other; 1 where neither has an outline."""
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
    """Pixels of a mask's edge: those that differ from the right or lower neighbour."""
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    edge[:-1] |= mask[1:] != mask[:-1]
    return edge


def _dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    ndimage = require("scipy.ndimage", "eval")
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return ndimage.binary_dilation(mask, x**2 + y**2 <= radius**2)
