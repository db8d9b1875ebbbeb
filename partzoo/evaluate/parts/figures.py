"""Compute how well the parts that a model finds explain a protocol's landmarks or masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from partzoo.data.reading import Example, Examples
from partzoo.discovery.finder import Finder
from partzoo.discovery.pipeline import fitted
from partzoo.discovery.vocabulary import PartVocabulary
from partzoo.errors import ImageError, MissingExtraError, PartzooError, UsageError
from partzoo.evaluate.bootstrap import mean_interval, table_interval
from partzoo.evaluate.metrics import Contingency, ForegroundIoU, Presence, foreground_labels, labels_by_class, stability
from partzoo.evaluate.parts.landmark_error import Places, landmark_error
from partzoo.evaluate.parts.landmarks import (
    OUTSIDE,
    active_parts,
    labels_at,
    labels_on_grid,
    part_centroids,
    soft_centroids,
)
from partzoo.evaluate.parts.rotation import rotated
from partzoo.evaluate.protocols.base import LandmarkError, PartProtocol
from partzoo.images.opening import OpenedImage
from partzoo.progress import ProgressCallback
from partzoo.skipping import PassOver

Key = tuple[int | str, int]  # k, seed
STABILITY_STEP = 4  # every fourth row and column of a label map is kept to compare seeds


def part_figures(
    finder: Finder,
    protocol: PartProtocol,
    data: str | Path,
    *,
    k: Sequence[int | None],
    seeds: Iterable[int],
    split: str | None = None,
    limit: int | None = None,
    rotate: float = 0.0,
    progress: ProgressCallback | None = None,
    pass_over: PassOver | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Compute the figures of every k and seed, in one pass over the images.

    The vocabulary is the one that :func:`partzoo.fit_parts` would fit on the protocol's fitting split. A learned part
    model has a fixed vocabulary for all seeds and is evaluated once for each k. A model with parts for each class gets
    the class of each image.

    Args:
        finder: finder with its model and settings.
        protocol: rules of the measurement.
        data: folder of the protocol's data.
        k: numbers of parts; None means the number that a learned part model has.
        seeds: random seeds of the clustering.
        split: split to report on instead of the protocol's.
        limit: use at most this many images of each split.
        rotate: angle in degrees, counter-clockwise, by which the reported images are rotated; see :mod:`.rotation`.
            Fitting uses upright images.
        progress: function that is called with the name of the work, the amount done, and the total.
        pass_over: function that is called for each image that cannot be used, which is then skipped; None raises the
            error.

    Returns:
        ``[{"k", "seed", "metrics", "intervals"}]``, in per cent, with ``seed`` None for the agreement of all seeds; and
        the number of reported images. See :meth:`Tally.figures` and :meth:`Tally.intervals`.

    Raises:
        UsageError: the data is missing, or k is out of range.
        ImageError: no image of a split can be used, or one of them cannot and there is no ``pass_over``.
    """
    fit = protocol.load(Path(data), protocol.fit)[: _least(protocol.fit_images, limit)]
    report = protocol.load(Path(data), split or protocol.report)[:limit]
    turn = partial(rotated, degrees=rotate, protocol=protocol) if rotate else None
    seeds = [0] if finder.learned else list(seeds)
    asked = list(dict.fromkeys(map(finder.asked, k)))
    vocabularies = fitted(
        finder, _OpenedImages(fit), asked, seeds, progress=_reporting(progress, "vocabulary"),
        pass_over=pass_over and partial(_pass_over, fit, pass_over),
    )  # fmt: skip
    tallies = {key: Tally(protocol, vocabulary.k, finder.classes) for key, vocabulary in vocabularies.items()}
    scores_of = partial(_scores, finder, protocol, vocabularies)
    if protocol.error is not None:
        for example in _usable(fit, pass_over, _reporting(progress, "regression")):
            scores = scores_of(example)
            for key, tally in tallies.items():
                tally.learn(example, scores[key])
    coarse: dict[Key, list[np.ndarray]] = {key: [] for key in tallies}
    images = 0
    for example in _usable(report, pass_over, _reporting(progress, "report")):
        images += 1
        example = turn(example) if turn else example
        scores, mirror = scores_of(example), scores_of(_mirrored(example)) if protocol.mirrored else {}
        for key, tally in tallies.items():
            labels = tally.count(example, scores[key], mirror.get(key))
            coarse[key].append(labels[::STABILITY_STEP, ::STABILITY_STEP].astype(np.uint16))
    runs: list[dict[str, Any]] = [
        {"k": tally.k, "seed": key[1], "metrics": tally.figures(), "intervals": tally.intervals()}
        for key, tally in tallies.items()
    ]
    if len(seeds) > 1:
        for each in asked:
            parts = max(tallies[each, seed].k for seed in seeds)
            nmi, ari = stability([coarse[each, seed] for seed in seeds], parts)
            metrics = {"stability_nmi": 100 * nmi, "stability_ari": 100 * ari}
            runs.append({"k": parts, "seed": None, "metrics": metrics})
    return runs, images


def _mirrored(example: Example) -> Example:
    return replace(example, image=np.ascontiguousarray(example.image[:, ::-1]))


class Tally:
    """A protocol's figures for the parts of one vocabulary, updated image by image.

    Args:
        protocol: rules of the measurement.
        k: number of parts.
        classes: number of classes whose parts are counted separately; 0 uses the protocol's number.
    """

    def __init__(self, protocol: PartProtocol, k: int, classes: int = 0) -> None:
        self.protocol, self.k, self.classes = protocol, k, classes or protocol.classes
        self.tables: dict[str, dict[int, Contingency]] = {}
        self.presence, self.foreground = Presence(k), ForegroundIoU()
        self.kept = self.labelled = 0
        self._side = 0
        self._fit: list[Places] = []
        self._report: list[Places] = []
        self._groups: list[int] = []

    def learn(self, example: Example, scores: np.ndarray) -> None:
        """Add one image of the fitting split: its part centroids and its landmarks."""
        self._fit.append(self._place(example, scores))

    def count(self, example: Example, scores: np.ndarray, mirror: np.ndarray | None = None) -> np.ndarray:
        """Count an image of the report split, with scores ``(k + 1, h, w)``, background first; return its label map.

        ``mirror`` holds the scores of the mirror image, if the protocol asks for them.
        """
        labels, self._side = scores.argmax(0), example.image.shape[0]
        self.presence.update(labels[None])
        best = foreground_labels(scores) if self.k else labels
        if example.mask is not None:
            true = example.mask != self.protocol.background
            self.foreground.update(true[None], labels[None] > 0)
            self._count("{}", example, example.mask, self._of_class(labels, example))
            self._count("labelled_{}", example, example.mask[true], self._of_class(labels, example)[true])
            if mirror is not None:
                self.kept += int((labels == mirror.argmax(0)[:, ::-1])[true].sum())
                self.labelled += int(true.sum())
            self._count("fg_{}", example, example.mask[true], self._of_class(best, example)[true])
        else:
            for name, take in self.protocol.readings.items():
                truth = np.arange(len(take(_points(example))))
                for figure, found in ((f"{{}}{name}", labels), (f"fg_{{}}{name}", best)):
                    at, counted = self._at(example, found, take)
                    self._count(figure, example, truth[counted], at[counted])
        if self.protocol.error is not None:
            self._report.append(self._place(example, scores))
            self._groups.append(example.group)
        return labels

    def figures(self) -> dict[str, float]:
        """Return all figures so far, in per cent."""
        found: dict[str, float] = {}
        for name, groups in self.tables.items():
            table = sum(groups.values(), self._table())
            found |= {name.format("nmi"): 100 * table.nmi(), name.format("ari"): 100 * table.ari()}
        if self._report:
            found["nme"] = float(np.nanmean(self.errors()))
        if self.foreground.images:
            found["foreground_iou"] = 100 * self.foreground.iou()
        if self.labelled:
            found["mirrored"] = 100 * self.kept / self.labelled
        return found | {"presence": 100 * float(self.presence.shares().mean()) if self.k else 0.0}

    def intervals(self) -> dict[str, list[float]]:
        """Return 95 % confidence intervals of the first reading's figures, by resampling groups; none for one group."""
        first = next(iter(self.protocol.readings))
        found: dict[str, list[float]] = {}
        for name in (f"{{}}{first}", f"fg_{{}}{first}"):
            groups = self.tables.get(name, {})
            if len(groups) > 1:
                for figure in (Contingency.nmi, Contingency.ari):
                    found[name.format(figure.__name__)] = [100 * bound for bound in table_interval(groups, figure)]
        if self._report and len(set(self._groups)) > 1:
            found["nme"] = mean_interval(self.errors(), np.array(self._groups))
        return found

    def errors(self) -> np.ndarray:
        """Return each landmark's error in each reported image, ``(N, L)`` in per cent; NaN if it is not counted."""
        return landmark_error(self._rules, _joined(self._fit), _joined(self._report), self._side)

    @property
    def _rules(self) -> LandmarkError:
        """Rules of the landmark error; only for protocols that have them."""
        assert self.protocol.error is not None
        return self.protocol.error

    def _table(self) -> Contingency:
        return Contingency(self.protocol.truths, self.k * self.classes + 1)

    def _count(self, figure: str, example: Example, true: np.ndarray, found: np.ndarray) -> None:
        groups = self.tables.setdefault(figure, {})
        groups.setdefault(example.group, self._table()).update(true, found)

    def _of_class(self, labels: np.ndarray, example: Example) -> np.ndarray:
        """Make the parts in label maps distinct across classes, if they are counted separately."""
        if self.classes == 1:
            return labels
        return labels_by_class(labels[None], np.array([example.category]), self.k)[0]

    def _at(self, example: Example, labels: np.ndarray, take: Callable) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels at a reading's landmarks, and which of them count."""
        points = take(_points(example))[None]
        if self.protocol.grid is None:
            at = labels_at(labels[None], points)[0]
        else:
            at = labels_on_grid(labels[None], points, example.image.shape[0])[0]
        visible = np.ones(len(at), bool) if example.visible is None else example.visible
        return at, visible & (at != OUTSIDE)

    def _place(self, example: Example, scores: np.ndarray) -> Places:
        """Return the parts and the landmarks of the first reading in one image, as a batch of one."""
        rules = self._rules
        height, width = example.image.shape[:2]
        if rules.centroids == "soft":
            centroids = soft_centroids(scores[None])
        else:
            centroids = part_centroids(scores.argmax(0)[None], self.k)
        return Places(
            centroids * (width / scores.shape[2], height / scores.shape[1]),
            next(iter(self.protocol.readings.values()))(_points(example))[None],
            None if example.visible is None else example.visible[None],
            None if rules.active is None else active_parts(scores[None], rules.active),
            None if example.box is None else np.array([example.box]),
        )


def _joined(places: Sequence[Places]) -> Places:
    columns: dict[str, Any] = {field.name: [getattr(each, field.name) for each in places] for field in fields(Places)}
    joined: dict[str, Any] = {
        name: None if column[0] is None else np.concatenate(column) for name, column in columns.items()
    }
    return Places(**joined)


def _points(example: Example) -> np.ndarray:
    """Return the landmarks of an example without a mask."""
    assert example.points is not None
    return example.points


class _OpenedImages(Sequence[OpenedImage]):
    """A sequence of the images of examples, read on demand."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        return OpenedImage(self.examples[index].image)


def _scores(
    finder: Finder, protocol: PartProtocol, vocabularies: dict[Key, PartVocabulary], example: Example
) -> dict[Key, np.ndarray]:
    """Return the scores ``(k + 1, h, w)`` of an example under each vocabulary."""
    view = finder.look(OpenedImage(example.image), example.category if finder.classes else None)
    size = (protocol.grid,) * 2 if protocol.grid else example.image.shape[:2]
    return {key: finder.scores(view, each, size).numpy() for key, each in vocabularies.items()}


def _usable(
    examples: Sequence[Example], pass_over: PassOver | None, report: Callable[[int, int], None] | None
) -> Iterator[Example]:
    """Yield the examples one by one, without those that cannot be used."""
    used = 0
    for index in range(len(examples)):
        try:
            example = examples[index]
        except (ImageError, UsageError) as error:
            if pass_over is None:
                raise
            _pass_over(examples, pass_over, index, error)
        else:
            used += 1
            yield example
        if report:
            report(index + 1, len(examples))
    if not used:
        raise ImageError(f"None of the {len(examples)} images of a split can be used.")


def _pass_over(examples: Sequence[Example], pass_over: PassOver, index: int, error: PartzooError) -> None:
    """Report an image by name; a missing library is not a fault of the image, so its error is raised."""
    if isinstance(error, MissingExtraError):
        raise error
    pass_over(examples.name(index) if isinstance(examples, Examples) else f"image {index + 1}", error)


def _reporting(progress: ProgressCallback | None, what: str) -> Callable[[int, int], None] | None:
    return partial(progress, what) if progress else None


def _least(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return min(known) if known else None
