"""Draw the cells of labelled images that a classifier of cells learns from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from partzoo.discovery.given_labels import UNKNOWN
from partzoo.discovery.refine import resize
from partzoo.discovery.taught import TaughtFinder, TaughtImage
from partzoo.images.opening import OpenedImage

CELLS, FEW = 1024, 32  # cells of an image to learn from, and the least number of each label
SIDES = (("left", "right"), ("l", "r"))  # words by which names of two parts may differ that mirroring exchanges


@dataclass(frozen=True, eq=False)
class Lesson:
    """The cells of one image, or of its mirror image, that are learned from.

    Attributes:
        blocks: what is known of all cells, float16; see :func:`partzoo.discovery.taught.blocks_of`.
        features: ``(N, D)`` float16, of the drawn cells.
        places: ``(N,)`` int64, numbers of the drawn cells, row by row.
        labels: ``(N,)`` int64.
        weights: ``(N,)`` float32, how many cells each of them stands for.
    """

    blocks: tuple[Tensor, ...]
    features: Tensor
    places: Tensor
    labels: Tensor
    weights: Tensor

    @classmethod
    def of(cls, look: TaughtImage, labels: np.ndarray, seed: int = 0) -> Lesson:
        """Draw some of the cells whose label ``(rows, columns)`` is known."""
        places, weights = drawn_cells(labels.ravel(), CELLS, seed)
        table = torch.cat([resize(block, look.grid) for block in look.blocks]).flatten(1)
        return cls(
            tuple(block.half() for block in look.blocks),
            table[:, places].T.half(),
            torch.from_numpy(places),
            torch.from_numpy(labels.ravel()[places]),
            torch.from_numpy(weights),
        )


def lessons_of(
    finder: TaughtFinder,
    image: OpenedImage,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    sided: bool = False,
    mirrored: bool = True,
    seed: int = 0,
) -> Iterator[Lesson]:
    """Yield what a labelled image teaches, and if ``mirrored``, what its mirror image does.

    With ``sided``, the labels of two parts whose names differ in left and right alone are exchanged in the mirror
    image; without such names it is not used.
    """
    look = finder.look(image)
    known = cell_labels(labels, look.grid)
    yield Lesson.of(look, known, seed)
    pairs = sides(names) if sided else {}
    if mirrored and (pairs or not sided):
        mirror = known[:, ::-1].copy()
        for part, other in pairs.items():
            mirror[known[:, ::-1] == part] = other
        turned = OpenedImage(np.ascontiguousarray(image.pixels[:, ::-1]))
        yield Lesson.of(finder.look(turned), mirror, seed)


def cell_labels(labels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the most frequent known label of each cell, ``(rows, columns)`` int64; 255 where there is none.

    Args:
        labels: ``(H, W)`` int64, 255 for unknown pixels.
        grid: numbers of rows and columns of cells.
    """
    (height, width), (rows, columns) = labels.shape, grid
    if height < rows or width < columns:  # cells that are smaller than pixels take the label of the pixel they are in
        down, across = (np.arange(n) * size // n for n, size in ((rows, height), (columns, width)))
        return labels[down[:, None], across]
    down, across = np.arange(height) * rows // height, np.arange(width) * columns // width
    cells = down[:, None] * columns + across
    found, best = np.full(rows * columns, UNKNOWN), np.zeros(rows * columns, np.int64)
    for label in np.unique(labels[labels != UNKNOWN]):
        counts = np.bincount(cells[labels == label], minlength=rows * columns)
        found[counts > best] = label
        best = np.maximum(best, counts)
    return found.reshape(grid)


def sides(names: Sequence[str]) -> dict[int, int]:
    """Return, for each part whose name says left or right, the part on the other side: ``l_eye`` and ``r_eye``."""
    numbers = {name.lower(): number for number, name in enumerate(names, 1)}
    found = {}
    for name, number in numbers.items():
        for left, right in SIDES:
            for here, there in ((left, right), (right, left)):
                other = re.sub(rf"(?<![a-z]){here}(?![a-z])", there, name)
                if other != name and other in numbers:
                    found[number] = numbers[other]
    return found


def drawn_cells(labels: np.ndarray, room: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw cells with known labels: of each label its share of ``room``, but of small ones at least ``FEW``.

    Returns:
        Places of the drawn cells, ascending, and their weights, float32, which sum to the number of known cells.
    """
    random = np.random.default_rng(seed)
    count = int((labels != UNKNOWN).sum())
    places, weights = [], []
    for label in np.unique(labels[labels != UNKNOWN]):
        cells = np.flatnonzero(labels == label)
        drawn = random.permutation(cells)[: max(round(len(cells) * min(room / count, 1)), FEW)]
        places.append(drawn)
        weights.append(np.full(len(drawn), len(cells) / len(drawn), np.float32))
    if not places:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    order = np.argsort(np.concatenate(places))
    return np.concatenate(places)[order], np.concatenate(weights)[order]
