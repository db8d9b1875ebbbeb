"""Teach parts with labelled images: a linear classifier of cells, then a network that also sees what it finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import accumulate
from operator import add

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from partzoo.discovery.discriminant import NEVER, Sums, directions, discriminant
from partzoo.discovery.given_labels import UNKNOWN, GivenLabels, digest_of
from partzoo.discovery.lessons import Lesson, lessons_of
from partzoo.discovery.network import fit_network
from partzoo.discovery.surroundings import MAPS, surroundings
from partzoo.discovery.taught import TaughtFinder, linear_maps
from partzoo.discovery.vocabulary import Network, PartVocabulary, Settings
from partzoo.errors import UsageError
from partzoo.images.ahead import Progress
from partzoo.limits import check_parts
from partzoo.parts.parts import default_names

MIRRORED = 25  # number of labelled images whose mirror images are learned from, so that a hundred take a minute
FOLDS = 5  # groups of labelled images, each of which is classified by what the other ones teach
DIRECTIONS = 256  # largest number of linear functions of the features that the network sees
SHARPEST = 8  # number of times that logits are halved at most, to become as sure as they are right
RECALL = 0.2  # share of a label's cells that must be found for the network to see where it is
STILL = 0.02  # standard deviation that is added to that of shares, so that rare ones do not count too much


class Course:
    """What is learned from labelled images, in folds that can be left out.

    Args:
        settings: settings of the finder that saw the images.
        names: names of the parts, or None.
        seed: random seed of the network.
    """

    def __init__(self, settings: Settings, names: Sequence[str] | None, seed: int = 0) -> None:
        self.settings, self.names, self.seed = settings, tuple(names or ()), seed
        self.folds: dict[int, Sums] = {}
        self.lessons: list[tuple[int, Lesson]] = []
        self.examples: dict[str, int] = {}

    def add(self, digest: str, lessons: Iterable[Lesson]) -> None:
        """Add the lessons of an image, whose fold is then ``examples[digest]``."""
        self.examples[digest] = fold = len(self.examples) % FOLDS
        own = list(lessons)
        found = reduce(add, (Sums.of(each.features.float(), each.labels, each.weights, UNKNOWN) for each in own))
        self.folds[fold] = self.folds[fold] + found if fold in self.folds else found
        self.lessons += [(fold, each) for each in own]

    def vocabulary(self, without: int | None = None) -> PartVocabulary:
        """Return the vocabulary that the images teach, those of one fold left out.

        Raises:
            UsageError: no pixel has a known label, or there are too many parts.
        """
        folds = {fold: found for fold, found in self.folds.items() if fold != without and found.counts.sum() >= 1}
        if not folds:
            raise UsageError("Every pixel that labels= has is unknown (255): label some of them.")
        total = reduce(add, folds.values())
        k = max(len(self.names), int((total.counts > 0.5).nonzero().max()))
        check_parts(k)
        total, folds = _cut(total, k + 1), {fold: _cut(found, k + 1) for fold, found in folds.items()}
        centres, network = discriminant(total), None
        lessons = [(fold, lesson) for fold, lesson in self.lessons if fold in folds]
        if len(folds) > 1:
            others = {fold: discriminant(total - found) for fold, found in folds.items()}
            sharpness = _sharpness((lesson, others[fold]) for fold, lesson in lessons)
            shown = [(lesson, sharpness * others[fold]) for fold, lesson in lessons]
            centres, network = sharpness * centres, _network(shown, directions(total, DIRECTIONS), self.seed)
        return dataclasses.replace(
            taught_by(centres, self.settings, self.names), network=network, examples=tuple(sorted(self.examples))
        )


def teach(
    finder: TaughtFinder, given: GivenLabels, *, sided: bool = False, seed: int = 0, progress: Progress | None = None
) -> PartVocabulary:
    """Fit a classifier of cells to labels; see :func:`partzoo.fit_parts`.

    Raises:
        UsageError: no pixel has a known label, or there are too many parts.
    """
    course = Course(dataclasses.replace(finder.settings, sided=sided), given.names, seed)
    for digest, lessons in learned(finder, given, sided=sided, seed=seed, progress=progress):
        course.add(digest, lessons)
    return course.vocabulary()


def learned(
    finder: TaughtFinder, given: GivenLabels, *, sided: bool = False, seed: int = 0, progress: Progress | None = None
) -> Iterator[tuple[str, list[Lesson]]]:
    """Yield the digest of each labelled image, and its lessons; see :func:`partzoo.discovery.lessons.lessons_of`.

    Mirror images are those of the first :data:`MIRRORED` images alone, as more images need them less.
    """
    for done, (image, labels) in enumerate(given, 1):
        mirrored = done <= MIRRORED
        found = lessons_of(finder, image, labels, given.names or (), sided=sided, mirrored=mirrored, seed=seed)
        yield digest_of(image), list(found)
        if progress:
            progress(done, len(given))


def taught_by(rows: Tensor, settings: Settings, names: Sequence[str] | None) -> PartVocabulary:
    """Return the vocabulary of a classifier ``(K + 1, D + 1)``, whose first row is that of the background."""
    k, names = len(rows) - 1, tuple(names or ())
    return PartVocabulary(rows, settings, tuple(range(k + 1)), (*names, *default_names(k)[len(names) :]))


def _cut(found: Sums, classes: int) -> Sums:
    return dataclasses.replace(found, counts=found.counts[:classes], sums=found.sums[:classes])


def _sharpness(shown: Iterable[tuple[Lesson, Tensor]]) -> float:
    """Return the factor of classifiers' logits, 1 or less, with which cells that they were not fitted to are likeliest.

    The analysis is far too sure of cells of other images, since its many features are fitted to few images.
    """
    logits, labels, weights = [], [], []
    for lesson, rows in shown:
        known = rows[lesson.labels, -1] > NEVER  # the classifier was fitted to cells with the same label
        logits.append(lesson.features[known].float() @ rows[:, :-1].T + rows[:, -1])
        labels.append(lesson.labels[known])
        weights.append(lesson.weights[known])
    found, true, share = torch.cat(logits), torch.cat(labels), torch.cat(weights)
    losses = [
        (share * cross_entropy(found / 2**halved, true, reduction="none")).sum() for halved in range(SHARPEST + 1)
    ]
    return 0.5 ** int(torch.stack(losses).argmin())


def _network(shown: Sequence[tuple[Lesson, Tensor]], functions: Tensor, seed: int) -> Network:
    """Train a network on functions of cells' features, and on what other images' classifiers find around the cells.

    It is not shown the labels of which these classifiers find too little to learn from.
    """
    classes = len(shown[0][1])
    labels, weights = (torch.cat([getattr(lesson, name) for lesson, _ in shown]) for name in ("labels", "weights"))
    x = torch.empty(len(labels), MAPS * classes + len(functions), dtype=torch.float16)  # half the memory
    around, seen = x.split([MAPS * classes, len(functions)], dim=1)
    ends = [0, *accumulate(len(lesson.labels) for lesson, _ in shown)]
    for (lesson, rows), start, end in zip(shown, ends, ends[1:], strict=False):
        blocks = [block.float() for block in lesson.blocks]
        found = surroundings(linear_maps(blocks, rows).softmax(0))
        around[start:end] = _at(found, blocks[-1].shape[-2:], lesson.places)
        seen[start:end] = lesson.features.float() @ functions[:, :-1].T + functions[:, -1]
    shares = around.float()
    closest = weights[:, None] * shares[:, :classes]
    hits = torch.zeros(classes, classes).index_add_(0, labels, closest).diagonal()
    unseen = hits < RECALL * torch.zeros(classes).index_add_(0, labels, weights).clamp(min=1)
    mean, spread = shares.mean(0), shares.std(0) + STILL
    spread[unseen.repeat(len(mean) // classes)] = torch.inf
    around.copy_(shares.sub_(mean).div_(spread))
    del shares, closest
    hidden, output = fit_network(x, labels, weights, classes, len(shown), seed)
    of_shares, of_functions, constant = hidden.split([len(mean), len(functions), 1], dim=1)
    of_shares = of_shares / spread
    of_features = of_functions @ functions
    of_features[:, -1:] += constant - (of_shares @ mean)[:, None]
    return Network(torch.cat([of_shares, of_features], dim=1), output)


def _at(maps: Tensor, grid: Sequence[int], places: Tensor) -> Tensor:
    """Return the values ``(N, C)`` of coarser maps ``(C, h, w)`` at some of the cells of a grid."""
    rows, columns = maps.shape[1:]
    down, across = places // grid[1] * rows // grid[0], places % grid[1] * columns // grid[1]
    return maps[:, down, across].T
