"""Judge a vocabulary: by labels, part by part, and by its doubt about images without labels."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from partzoo.discovery.factory import finder_of
from partzoo.discovery.given_labels import UNKNOWN, GivenLabels, digest_of
from partzoo.discovery.masks import Masks
from partzoo.discovery.pipeline import work_on
from partzoo.discovery.taught import TaughtFinder
from partzoo.discovery.teaching import Course, learned
from partzoo.discovery.vocabulary import PartVocabulary, read_vocabulary
from partzoo.errors import UsageError, counted
from partzoo.images.ahead import AHEAD, PassOver, Progress
from partzoo.images.opening import OpenedImage, open_images
from partzoo.limits import MAX_BYTES, MAX_PIXELS
from partzoo.system.device import Device

POOR = 0.5  # IoU below which more labels are advised


@dataclass(frozen=True, eq=False)
class PartScores:
    """How well the parts of a vocabulary agree with labels.

    Attributes:
        names: names of the K parts.
        ious: ``(K,)`` float64, intersection over union of each part's pixels over all images; NaN for parts that
            neither the labels nor the vocabulary find.
        images: ``(K,)`` int64, number of images whose labels show the part.
        left_out: number of images that the vocabulary was taught with, each of which was judged by what others teach.
    """

    names: tuple[str, ...]
    ious: np.ndarray
    images: np.ndarray
    left_out: int

    @classmethod
    def of(
        cls,
        vocabulary: PartVocabulary,
        images: Any,
        labels: Any,
        *,
        model: str | nn.Module | None = None,
        device: Device = None,
        progress: Progress | None = None,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
    ) -> PartScores:
        """Compare a vocabulary's parts with labels; see :meth:`PartVocabulary.evaluate`."""
        opened, single = open_images(images, max_pixels=max_pixels, max_bytes=max_bytes)
        given = GivenLabels.of(opened, single, labels, vocabulary.names)
        if len(vocabulary.examples) == 1 and all(digest_of(image) in vocabulary.examples for image, _ in given):
            raise UsageError("The image that taught these parts cannot judge them: label another one.")
        finder = finder_of(vocabulary, model, device)
        k = vocabulary.k
        tables, shown, left_out = np.zeros((k + 1, k + 1), np.int64), np.zeros(k, np.int64), 0
        for done, ((image, true), words) in enumerate(zip(given, _judges(vocabulary, finder, given), strict=True), 1):
            left_out += words is not vocabulary
            if true[true != UNKNOWN].max(initial=0) > k:
                raise UsageError(
                    f"The labels of {image.name} have more than the {counted(k, 'part')} of the vocabulary."
                )
            found = finder.label(image, finder.look(image), words).labels  # type: ignore[arg-type]
            known = true != UNKNOWN
            pairs = true[known] * (k + 1) + found[known]
            tables += np.bincount(pairs, minlength=(k + 1) ** 2).reshape(k + 1, k + 1)
            shown[np.unique(true[known & (true > 0)]) - 1] += 1
            if progress:
                progress(done, len(given))
        hits = tables.diagonal()[1:]
        union = tables.sum(0)[1:] + tables.sum(1)[1:] - hits
        with np.errstate(invalid="ignore"):
            return cls(vocabulary.names, hits / union, shown, left_out)

    @property
    def mean(self) -> float:
        """Mean IoU of the parts that the labels show."""
        shown = self.ious[self.images > 0]
        return float(shown.mean()) if len(shown) else float("nan")

    def advice(self, part: int) -> str:
        """Return what to do about a part: nothing, or label more of it."""
        return "" if self.ious[part - 1] >= POOR or np.isnan(self.ious[part - 1]) else "label more"

    def __str__(self) -> str:
        lines = [
            f"{name}: {iou:.2f} in {counted(int(count), 'image')}{', label more' * bool(self.advice(part))}"
            for part, (name, iou, count) in enumerate(zip(self.names, self.ious, self.images, strict=True), 1)
        ]
        return "\n".join(lines)


def _judges(vocabulary: PartVocabulary, finder: Any, given: GivenLabels) -> Iterator[PartVocabulary]:
    """Yield, for each labelled image, the vocabulary to judge it by: of one that was taught with it, the others'."""
    if not isinstance(finder, TaughtFinder) or vocabulary.history or len(vocabulary.examples) < 2:
        yield from [vocabulary] * len(given)
        return
    course = Course(vocabulary.settings, vocabulary.names)
    digests = []
    for digest, lessons in learned(finder, given, sided=vocabulary.settings.sided):
        digests.append(digest)
        if digest in vocabulary.examples and digest not in course.examples:
            course.add(digest, lessons)
    judge = functools.cache(course.vocabulary)
    for digest in digests:
        yield judge(course.examples[digest]) if len(course.folds) > 1 and digest in course.examples else vocabulary


def suggest_images(
    images: Any,
    vocabulary: PartVocabulary | str | os.PathLike,
    *,
    count: int = 10,
    model: str | nn.Module | None = None,
    device: Device = None,
    batch_size: int = AHEAD,
    progress: Progress | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    pass_over: PassOver | None = None,
) -> list[tuple[str, float]]:
    """Choose the images whose labels would teach a vocabulary most: those about which it has most doubt.

    Args:
        images: images without labels, in any form that :func:`partzoo.discover_parts` accepts for many.
        vocabulary: result of :func:`partzoo.fit_parts`, or its file.
        count: number of images to choose.
        model, device, batch_size, progress, max_pixels, max_bytes: as for :func:`partzoo.discover_parts`.
        pass_over: function that is called for each unreadable image, which is then left out; None raises the error.

    Returns:
        Name and doubt of each chosen image, most doubtful first. Doubt, 0..1, is the mean over the cells of one minus
        the highest score.

    Raises:
        ImageError: an image cannot be read.
        UsageError: the vocabulary is for another model, or count is below 1.
        WeightsError: the file of the vocabulary is missing or damaged.
    """
    if count < 1:
        raise UsageError(f"count={count} must be at least 1.")
    opened, _ = open_images(images, max_pixels=max_pixels, max_bytes=max_bytes)
    words = read_vocabulary(vocabulary)
    if words is None:
        raise UsageError("vocabulary=None: pass the result of fit_parts, or its file.")
    finder, words = finder_of(words, model, device), dataclasses.replace(words, network=None)  # which is never in doubt

    def doubt(index: int, image: OpenedImage, _: np.ndarray | None) -> tuple[str, float]:
        shares = finder.shares(finder.maps(finder.look(image), words))
        return opened.name(index), float(1 - (shares / shares.sum(0)).amax(0).mean())

    masks = Masks(None, len(opened), False)
    every = work_on(opened, doubt, finder, masks, range(len(opened)), batch_size, progress, pass_over)
    doubts = [each for _, each in every]
    return sorted(doubts, key=lambda pair: -pair[1])[:count]
