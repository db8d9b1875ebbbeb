"""Find the parts that a user has taught: a linear classifier of the features, colour and place of each cell."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from partzoo.discovery.colours import cielab
from partzoo.discovery.discriminant import Sums, discriminant
from partzoo.discovery.finder import MapLabeller
from partzoo.discovery.given_labels import UNKNOWN, GivenLabels, digest_of
from partzoo.discovery.labels import argmax
from partzoo.discovery.refine import resize
from partzoo.discovery.segmentation import certainty
from partzoo.discovery.views import CELL, view_image
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UsageError
from partzoo.images.ahead import Progress
from partzoo.images.opening import OpenedImage
from partzoo.limits import MAX_SIZE, check_parts
from partzoo.models.base import Model
from partzoo.models.foreground import ForegroundModel
from partzoo.parts.parts import default_names

CELLS, FEW = 2048, 32  # cells of an image to learn from, and the least number of each label
MIRRORED = 25  # number of labelled images whose mirror images are learned from, so that a hundred take a minute
SCALES = (8 / 7, 9 / 14)  # sizes at which the encoder sees an image, as shares of the working size; docs/taught.md
FINEST = 4  # smallest stride, in pixels, of the layers that are used
COLOUR = 50  # units of CIELAB that count as one
SIDES = (("left", "right"), ("l", "r"))  # words by which names of two parts may differ that mirroring exchanges


@dataclass(frozen=True, eq=False)
class TaughtImage:
    """One image as the finder of taught parts represents it.

    Attributes:
        pixels: ``(3, H, W)``, 0..1, at working size.
        layers: unit features ``(C_i, h_i, w_i)`` of each layer at each of the working sizes.
        mask: ``(H, W)`` bool foreground given by the caller, or None.
        quality: 1, since it is known only when the cells are classified: see :meth:`TaughtFinder.quality`.
    """

    pixels: Tensor
    layers: tuple[Tensor, ...]
    mask: np.ndarray | None = None
    quality: float = 1.0

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of rows and columns of cells."""
        return self.pixels.shape[1] // CELL, self.pixels.shape[2] // CELL

    @property
    def blocks(self) -> tuple[Tensor, ...]:
        """What is known of the cells; see :func:`blocks_of`."""
        return blocks_of(self.pixels, self.layers)


def blocks_of(pixels: Tensor, layers: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return what is known of the cells, ``(C_i, h_i, w_i)``: the features of each layer, then colour and place.

    Places have their squares and product, so that a linear classifier can prefer a middle.

    Args:
        pixels: ``(3, H, W)``, 0..1, at working size; all arguments and results may have a leading dimension B.
        layers: unit features ``(C_i, h_i, w_i)``.
    """
    colour = cielab(avg_pool2d(pixels, CELL).movedim(-3, 0)).movedim(0, -3) / COLOUR
    rows, columns = colour.shape[-2:]
    y, x = torch.meshgrid(_axis(rows), _axis(columns), indexing="ij")
    place = torch.stack([x, y, x * x, y * y, x * y])
    return *layers, torch.cat([colour, place.expand(*colour.shape[:-3], *place.shape)], dim=-3)


def shares_of(blocks: Sequence[Tensor], centres: Tensor, numbering: Sequence[int]) -> Tensor:
    """Compute the probabilities ``(K + 1, h, w)`` of the background and of each part on the grid of cells.

    Logits are computed on the grid of each block, then upsampled and added.

    Args:
        blocks: result of :func:`blocks_of`; they and the result may have a leading dimension B.
        centres: ``(R, D + 1)`` coefficients and constants of the classifier.
        numbering: part (1..K) of each of its rows, or 0 for the background.
    """
    size = blocks[-1].shape[-2:]
    *slopes, constants = centres.split([*(block.shape[-3] for block in blocks), 1], dim=1)
    logits = constants[:, :, None].expand(-1, *size)
    for slope, block in zip(slopes, blocks, strict=True):
        logits = logits + resize((slope @ block.flatten(-2)).unflatten(-1, block.shape[-2:]), size)
    groups = torch.tensor(numbering)[None] == torch.arange(max(numbering) + 1)[:, None]
    return (groups.float() @ logits.softmax(-3).flatten(-2)).unflatten(-1, size)


class TaughtFinder(MapLabeller[TaughtImage]):
    """A finder of taught parts.

    Args:
        model: the encoder.
        settings: options; ``background`` is the name of the foreground model.
        network: the foreground model whose features are used too, or None.
    """

    def __init__(self, model: Model, settings: Settings, network: ForegroundModel | None = None) -> None:
        super().__init__(model, settings)
        self.network = network

    def look(
        self,
        image: OpenedImage,
        category: int | None = None,
        encoded: None = None,
        mask: np.ndarray | None = None,
    ) -> TaughtImage:
        layers: list[Tensor] = []
        with torch.inference_mode():
            for size in self.settings.sizes:
                batch = view_image(image, self.model, size).batch
                maps = self.model.forward_intermediates(batch, list(self.settings.layers))
                layers += [normalize(layer[0].float().cpu(), dim=0) for layer in maps]
            if self.network is not None:
                maps = self.network.features(view_image(image, self.network, max(self.network.sizes)).batch)
                layers += [normalize(layer[0].float().cpu(), dim=0) for layer in maps]
            return TaughtImage(view_image(image, self.model, self.settings.size).pixels, tuple(layers), mask)

    def kept(self, look: TaughtImage) -> None:
        return None

    def maps(self, look: TaughtImage, vocabulary: PartVocabulary) -> Tensor:
        """Compute the probabilities ``(K + 1, h, w)`` of the background and of each part; see :func:`shares_of`."""
        blocks, taught = look.blocks, vocabulary.centres.shape[1] - 1
        if taught != (width := sum(map(len, blocks))):
            raise UsageError(
                f"The vocabulary was taught with {taught} features of a cell, but this model has {width}: use the "
                "model that it was taught with."
            )
        return shares_of(blocks, vocabulary.centres, vocabulary.numbering)

    def descriptors(self, look: TaughtImage, vocabulary: PartVocabulary) -> Tensor:
        """Return the coefficients of each part, and for joined ones their sum; zeros for unused numbers."""
        sums = torch.zeros(vocabulary.k + 1, vocabulary.centres.shape[1])
        return sums.index_add_(0, torch.tensor(vocabulary.numbering), vocabulary.centres)[1:]

    def quality(self, look: TaughtImage, coarse: Tensor) -> float:
        """Return the expected IoU of everything that is not background, 0..1."""
        return certainty(1 - coarse[0])

    argmax = staticmethod(argmax)

    @staticmethod
    def shares(maps: Tensor) -> Tensor:
        return maps


def teach(
    finder: TaughtFinder, given: GivenLabels, *, sided: bool = False, seed: int = 0, progress: Progress | None = None
) -> PartVocabulary:
    """Fit a classifier of cells to labels; see :func:`partzoo.fit_parts`.

    Raises:
        UsageError: no pixel has a known label, or there are too many parts.
    """
    examples = []

    def noted() -> Iterator[Sums]:
        for digest, found in learned(finder, given, sided=sided, seed=seed, progress=progress):
            examples.append(digest)
            yield found

    words = taught_from(reduce(add, noted()), dataclasses.replace(finder.settings, sided=sided), given.names)
    return dataclasses.replace(words, examples=tuple(sorted(examples)))


def taught_from(total: Sums, settings: Settings, names: Sequence[str] | None) -> PartVocabulary:
    """Return the vocabulary of what was learned from some images together; see :func:`learned` and :func:`teach`."""
    if total.counts.sum() < 1:
        raise UsageError("Every pixel that labels= has is unknown (255): label some of them.")
    k = max(len(names or ()), int(total.counts.nonzero().max()))
    check_parts(k)
    own = dataclasses.replace(total, counts=total.counts[: k + 1], sums=total.sums[: k + 1])
    return taught_by(discriminant(own), settings, names)


def taught_by(rows: Tensor, settings: Settings, names: Sequence[str] | None) -> PartVocabulary:
    """Return the vocabulary of a classifier ``(K + 1, D + 1)``, whose first row is that of the background."""
    k, names = len(rows) - 1, tuple(names or ())
    return PartVocabulary(rows, settings, tuple(range(k + 1)), (*names, *default_names(k)[len(names) :]))


def learned(
    finder: TaughtFinder, given: GivenLabels, *, sided: bool = False, seed: int = 0, progress: Progress | None = None
) -> Iterator[tuple[str, Sums]]:
    """Yield the digest of each labelled image, and what is learned from it and its mirror image; see :func:`lessons`.

    Mirror images are those of the first :data:`MIRRORED` images alone, as more images need them less.
    """
    for done, (image, labels) in enumerate(given, 1):
        cells = lessons(finder, image, labels, given.names or (), sided=sided, mirrored=done <= MIRRORED, seed=seed)
        yield digest_of(image), reduce(add, (Sums.of(*each, UNKNOWN) for each in cells))
        if progress:
            progress(done, len(given))


def lessons(
    finder: TaughtFinder,
    image: OpenedImage,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    sided: bool = False,
    mirrored: bool = True,
    seed: int = 0,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the sampled cells of a labelled image, as :func:`sampled_cells`, and if ``mirrored`` of its mirror image.

    With ``sided``, the labels of two parts whose names differ in left and right alone are exchanged in the mirror
    image; without such names it is not used.
    """
    look = finder.look(image)
    known = cell_labels(labels, look.grid)
    yield sampled_cells(look, known, seed)
    pairs = sides(names) if sided else {}
    if mirrored and (pairs or not sided):
        mirror = known[:, ::-1].copy()
        for part, other in pairs.items():
            mirror[known[:, ::-1] == part] = other
        turned = OpenedImage(np.ascontiguousarray(image.pixels[:, ::-1]))
        yield sampled_cells(finder.look(turned), mirror, seed)


def sampled_cells(look: TaughtImage, labels: np.ndarray, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return features ``(N, D)``, labels and weights of some of the cells whose label ``(rows, columns)`` is known."""
    drawn, weights = drawn_cells(labels.ravel(), CELLS, seed)
    table = torch.cat([resize(block, look.grid) for block in look.blocks]).flatten(1)
    y = torch.from_numpy(labels.ravel()[drawn])
    return table[:, drawn].T.contiguous(), y, torch.from_numpy(weights)


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


def encoder_sizes(size: int) -> tuple[int, ...]:
    """Return the sizes at which the encoder sees an image: a larger one shows details, a smaller one the whole."""
    return tuple(min(max(round(size * scale), 1), MAX_SIZE) for scale in SCALES)


def levels(model: Model) -> tuple[int, ...]:
    """Return the layers of an encoder that describe cells: the last at each stride of at least 4 pixels.

    If all layers have the same stride, they are those after each third of the blocks.
    """
    if model.reductions:
        return tuple(sorted({stride: i for i, stride in enumerate(model.reductions) if stride >= FINEST}.values()))
    side = max(model.preprocess.multiple, model.preprocess.size // 2)
    with torch.inference_mode():
        x = torch.zeros(1, 3, side, side, device=next(model.parameters()).device)
        count = len(model.forward_intermediates(x))
    return tuple(sorted({max(count * third // 3, 1) - 1 for third in (1, 2, 3)}))


def _axis(count: int) -> Tensor:
    """Return the places of cells along an axis, from -1 to 1."""
    return (torch.arange(count) + 0.5) * (2 / count) - 1


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
