"""Find the parts that a user has taught, by the features, colour and place of each cell and what is around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from partzoo.discovery.colours import cielab
from partzoo.discovery.finder import MapLabeller
from partzoo.discovery.labels import argmax
from partzoo.discovery.refine import resize
from partzoo.discovery.segmentation import certainty
from partzoo.discovery.surroundings import MAPS, surroundings
from partzoo.discovery.views import CELL, view_image
from partzoo.discovery.vocabulary import Network, PartVocabulary, Settings
from partzoo.errors import UsageError, WeightsError
from partzoo.images.opening import OpenedImage
from partzoo.limits import MAX_SIZE
from partzoo.models.base import Model
from partzoo.models.foreground import ForegroundModel

SCALES = (8 / 7, 9 / 14)  # sizes at which the encoder sees an image, as shares of the working size; docs/taught.md
FINEST = 4  # smallest stride, in pixels, of the layers that are used
COLOUR = 50  # units of CIELAB that count as one


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


def shares_of(
    blocks: Sequence[Tensor], centres: Tensor, numbering: Sequence[int], network: Network | None = None
) -> Tensor:
    """Compute the probabilities ``(K + 1, h, w)`` of the background and of each part on the grid of cells.

    Args:
        blocks: result of :func:`blocks_of`; they and the result may have a leading dimension B.
        centres: ``(R, D + 1)`` coefficients and constants of the classifier.
        numbering: part (1..K) of each of its rows, or 0 for the background.
        network: network that classifies the cells again, given what the classifier finds around them.
    """
    logits = linear_maps(blocks, centres)
    if network is not None:
        around = surroundings(logits.softmax(-3))
        units = linear_maps((around, *blocks), network.hidden).relu()
        logits = linear_maps((units,), network.output)
    groups = torch.tensor(numbering)[None] == torch.arange(max(numbering) + 1)[:, None]
    return (groups.float() @ logits.softmax(-3).flatten(-2)).unflatten(-1, logits.shape[-2:])


def linear_maps(blocks: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Compute linear functions ``(R, D + 1)`` of the blocks' channels, on the grid of the last block.

    They are computed on the grid of each block, then upsampled and added.
    """
    size = blocks[-1].shape[-2:]
    *slopes, constants = rows.split([*(block.shape[-3] for block in blocks), 1], dim=1)
    maps = constants[:, :, None].expand(-1, *size)
    for slope, block in zip(slopes, blocks, strict=True):
        maps = maps + resize((slope @ block.flatten(-2)).unflatten(-1, block.shape[-2:]), size)
    return maps


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
        network, around = vocabulary.network, MAPS * len(vocabulary.centres)
        if network is not None and network.hidden.shape[1] != around + taught + 1:
            raise WeightsError(
                "The vocabulary's network is not for its classifier, or of another partzoo: teach the parts again."
            )
        return shares_of(blocks, vocabulary.centres, vocabulary.numbering, network)

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
