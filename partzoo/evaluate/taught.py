"""Measure how well parts that are taught with few labelled images are found in others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partzoo.data.masks import MaskedSet, find_set
from partzoo.discovery.factory import make_taught_finder
from partzoo.discovery.given_labels import GivenLabels
from partzoo.discovery.teaching import Course, learned, taught_by
from partzoo.discovery.vocabulary import PartVocabulary
from partzoo.errors import ImageError, UsageError
from partzoo.evaluate.measurement import Measurement, Request, Run, digest
from partzoo.evaluate.metrics import Contingency
from partzoo.evaluate.parts.measurement import foreground_identity
from partzoo.evaluate.protocols.taught import COUNTS, FREQUENT, TaughtProtocol
from partzoo.features import loaded
from partzoo.images.ahead import Progress
from partzoo.images.opening import OpenedImage, open_images
from partzoo.progress import ProgressCallback
from partzoo.skipping import PassOver

FLOOR = "regression_"  # prefix of the floor's figures
FLOOR_COUNT = 20  # of the floor: number of labelled images, at most
MOST = 12_000  # of the floor: cells, at most
PENALTY, STEPS = 1e-3, 40  # of the floor: weight of the squared coefficients, and largest number of steps


class TaughtMeasurement(Measurement):
    """An evaluation of the parts that are taught with an encoder's features."""

    OPTIONS = ("background", "size", "refine")

    def __init__(self, rules: TaughtProtocol, request: Request) -> None:
        if request.k is not None:
            raise UsageError(f"k cannot be set for {request.protocol}, whose parts are its labels. Leave it out.")
        self.rules, self.request = rules, request
        self.weights = digest(loaded(request.model, "cpu"))
        self.finder = make_taught_finder(
            request.model, request.background, request.size, request.refine, request.device
        )
        self.identity = {"seeds": request.seeds, **foreground_identity(self.finder)}

    @staticmethod
    def reported_split(rules: TaughtProtocol) -> str:
        return "report"

    def measure(self, progress: ProgressCallback | None, pass_over: PassOver) -> tuple[list[Run], int]:
        asked, place = self.request, find_set(self.request.data, self.rules.data)
        train, report = MaskedSet(place, "train"), MaskedSet(place, asked.split or "report")
        words: dict[tuple[int, str], PartVocabulary] = {}
        for seed in range(asked.seeds):
            given = self._given(train, drawn(train, seed)[: max(COUNTS)])
            report_done = _reporting(progress, seed, asked.seeds)
            words |= {(seed, name): each for name, each in self._taught(given, report_done)}
        size = len(self.rules.labels) + 1
        tables = {key: Contingency(size, size) for key in words}
        images = 0
        for labels, image in self._usable(report, progress, pass_over):
            images += 1
            look = self.finder.look(image)
            for key, each in words.items():
                tables[key].update(labels, self.finder.label(image, look, each).labels)
        if not images:
            raise ImageError(f"None of the {len(report)} images of {place} can be used.")
        metrics: dict[int, dict[str, float]] = {}
        for (seed, name), table in tables.items():
            found = metrics.setdefault(seed, {})
            found[name] = 100 * mean_iou(table.counts)
            found[name.replace("iou", "accuracy")] = 100 * float(table.counts.trace() / table.counts.sum())
        return [{"k": None, "seed": seed, "metrics": each} for seed, each in metrics.items()], images

    def _taught(self, given: GivenLabels, progress: Progress | None) -> Iterator[tuple[str, PartVocabulary]]:
        """Yield the vocabularies that the first images teach, and those of the floor, by the names of their figures."""
        course = Course(self.finder.settings, given.names)
        cells: list[tuple[Tensor, Tensor, Tensor]] = []
        for done, (own, lessons) in enumerate(learned(self.finder, given, sided=True), 1):
            course.add(own, lessons)
            if done <= FLOOR_COUNT:
                cells.append((lessons[0].features.float(), lessons[0].labels, lessons[0].weights))
            if done in COUNTS:
                yield f"iou_{done}", course.vocabulary()
            if done in COUNTS and done <= FLOOR_COUNT:
                rows = plain_regression(cells, len(self.rules.labels) + 1)
                yield f"{FLOOR}iou_{done}", taught_by(rows, self.finder.settings, given.names)
            if progress:
                progress(done, len(given))

    def _given(self, train: MaskedSet, chosen: list[int]) -> GivenLabels:
        examples = [train[index] for index in chosen]
        opened, _ = open_images([each.pixels for each in examples])
        labels = [self.rules.labels_of(each.mask) for each in examples]
        return GivenLabels.of(opened, False, labels, self.rules.labels)

    def _usable(
        self, report: MaskedSet, progress: ProgressCallback | None, pass_over: PassOver
    ) -> Iterator[tuple[np.ndarray, OpenedImage]]:
        count = min(self.request.limit or len(report), len(report))
        for done in range(count):
            index = done * len(report) // count
            try:
                example = report[index]
            except (ImageError, UsageError) as error:
                pass_over(report.name(index), error)
            else:
                yield self.rules.labels_of(example.mask), OpenedImage(example.pixels)
            if progress:
                progress("report", done + 1, count)


def drawn(train: MaskedSet, seed: int) -> list[int]:
    """Return the indices of a training split in a random order, in which the first images are labelled."""
    return np.random.default_rng(seed).permutation(len(train)).tolist()


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean IoU of the frequent labels, 0..1, from counts of (true, found) labels."""
    hits = counts.diagonal()
    ious = hits / np.maximum(counts.sum(0) + counts.sum(1) - hits, 1)
    return float(ious[counts.sum(1) > FREQUENT * counts.sum()].mean())


def _reporting(progress: ProgressCallback | None, seed: int, seeds: int) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, of: progress("teaching", seed * of + done, seeds * of)


def plain_regression(cells: Sequence[tuple[Tensor, Tensor, Tensor]], classes: int) -> Tensor:
    """Fit a multinomial logistic regression with L-BFGS, as a floor.

    Args:
        cells: features ``(N, D)``, classes and weights of the sampled cells of each image.
        classes: number of classes.

    Returns:
        ``(classes, D + 1)`` float32: for each class the coefficients of the features, then its constant.
    """
    every = [torch.cat(column) for column in zip(*cells, strict=True)]
    x, y, weights = (column[:: -(-len(every[0]) // MOST)] for column in every)
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    x = torch.cat([(x - mean) / spread, torch.ones(len(x), 1)], dim=1)
    share = weights / weights.sum()
    found = torch.zeros(x.shape[1], classes, requires_grad=True)
    solver = torch.optim.LBFGS([found], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Any:
        solver.zero_grad()
        value = (share * torch.nn.functional.cross_entropy(x @ found, y, reduction="none")).sum()
        value = value + PENALTY * found[:-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    slopes, constants = found.detach().split([x.shape[1] - 1, 1])
    slopes = slopes / spread[:, None]
    return torch.cat([slopes, constants - mean @ slopes]).T.contiguous()
