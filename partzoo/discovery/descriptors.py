"""Compute a descriptor for each cell of an image, which combines its features, colour and position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from partzoo.discovery.colours import cielab
from partzoo.discovery.refine import resize
from partzoo.discovery.views import CELL
from partzoo.errors import UsageError

COLOUR_ANGLE = (0.02, 0.03, 0.03)  # radians per unit of L, a, b
POSITION_ANGLE = 0.7  # radians per unit of position, see position()
TEMPERATURE = 0.1  # of the softmax over the cosines in coherent()
KEYS = 32  # largest number of rows and of columns of cells that are attended to


@dataclass(frozen=True, eq=False)
class Descriptors:
    """Descriptors of one image: features of each layer, colour and position, each on a separate grid of cells.

    Attributes:
        layers: unit features ``(C, h_i, w_i)`` of each chosen layer, with one grid per layer.
        colour: ``(6, h, w)`` unit vectors whose dot product decreases as the colours differ more.
        position: ``(4, h, w)`` unit vectors whose dot product decreases with the distance.
        score: ``(h, w)`` foreground score; a value of at least 0.5 is foreground.
    """

    layers: tuple[Tensor, ...]
    colour: Tensor
    position: Tensor
    score: Tensor

    @property
    def inside(self) -> Tensor:
        """Cells ``(rows, columns)`` bool of the last layer's grid that are mostly foreground; if there are none, those
        that have any."""
        share = resize(((self.score >= 0.5).float())[None], self.layers[-1].shape[1:])[0]
        return share >= 0.5 if (share >= 0.5).any() else share > 0

    @property
    def blocks(self) -> tuple[Tensor, ...]:
        """Layers, colour and position: unit vectors ``(C, rows, columns)``, one grid per block."""
        return *self.layers, self.colour, self.position

    def sample(self, count: int, seed: int, weights: Sequence[float]) -> Tensor:
        """Return unit descriptors ``(n, D)`` of the foreground cells among about ``count`` of the last layer's cells.

        They are the blocks side by side, each of length ``sqrt(weight)``, so that a cosine of descriptors is the
        weighted sum of the blocks' cosines.
        """
        inside = self.inside
        cells = inside.flatten().nonzero()[:, 0]
        drawn = torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))
        cells = cells[drawn[: ceil(len(cells) * min(count / inside.numel(), 1))].sort().values]
        parts = [w**0.5 * normalize(resize(b, inside.shape), dim=0) for b, w in zip(self.blocks, weights, strict=True)]
        return torch.cat(parts).flatten(1).T[cells]

    def similarities(self, centres: Tensor, weights: Sequence[float]) -> Tensor:
        """Compute the cosines ``(K, h, w)`` of the cells' descriptors with centres ``(K, D)``.

        They are computed on the grid of each block, then upsampled and added: the cosine is a sum over the blocks, and
        upsampling is linear.
        """
        found = torch.zeros(len(centres), *self.score.shape)
        channels = sum(len(block) for block in self.blocks)
        if centres.shape[1] != channels:
            raise UsageError(
                f"The vocabulary's descriptors have {centres.shape[1]} channels, but this model's have {channels}: "
                "use the model that the vocabulary was fitted with."
            )
        for block, centre, weight in zip(
            self.blocks, centres.split([len(block) for block in self.blocks], dim=1), weights, strict=True
        ):
            if weight and len(centre):
                maps = (centre @ block.flatten(1)).unflatten(1, block.shape[1:])
                found += weight**0.5 * resize(maps, found.shape[1:])
        return found


def describe(pixels: Tensor, layers: Sequence[Tensor], score: Tensor, *, centre: bool = False) -> Descriptors:
    """Compute the descriptors of an image's cells.

    Args:
        pixels: ``(3, H, W)``, 0..1, at working size.
        layers: unit features ``(C, h_i, w_i)``.
        score: ``(h, w)`` foreground score; a value of at least 0.5 is foreground.
        centre: whether to subtract the foreground's mean from the features.
    """
    kept = [centred(layer, score) for layer in layers] if centre else layers
    kept = tuple(coherent(layer, score) for layer in kept)
    return Descriptors(kept, angles(cielab(avg_pool2d(pixels, CELL)), COLOUR_ANGLE), position(score), score)


def centred(layer: Tensor, score: Tensor) -> Tensor:
    """Subtract the foreground's mean from features ``(C, h, w)``, and normalize them to unit length.

    What a whole object has in common does not distinguish its parts, and it varies between images with light and class.
    """
    inside = resize((score >= 0.5).float()[None], layer.shape[1:])
    inside = inside if inside.any() else torch.ones_like(inside)
    return normalize(layer - (layer * inside).sum((1, 2), keepdim=True) / inside.sum(), dim=0)


def coherent(layer: Tensor, score: Tensor) -> Tensor:
    """Average each of the unit features ``(C, h, w)`` with similar ones on the same side of the foreground's outline.

    This is one step of attention without learned weights. It smooths each part and keeps parts that look different
    apart; it raised the agreement with label maps on dev splits (docs/discovery.md). For grids of more than 32 x 32
    cells, the keys and values are a coarser copy of the grid.

    Source: Buades, Coll and Morel, "A non-local algorithm for image denoising", CVPR 2005, applied to features.
    """
    rows, columns = (min(side, KEYS) for side in layer.shape[1:])
    keys = normalize(resize(layer, (rows, columns)), dim=0)
    inside = (score >= 0.5).float()[None]
    sides = [(resize(inside, grid.shape[1:])[0] >= 0.5).flatten() for grid in (layer, keys)]
    cosines = layer.flatten(1).T @ keys.flatten(1) / TEMPERATURE
    cosines.masked_fill_(sides[0][:, None] != sides[1], -torch.inf)
    alone = ~cosines.isfinite().any(1)  # cells whose side is too thin for the coarser copy stay as they are
    mean = (keys.flatten(1) @ cosines.softmax(1).T).unflatten(1, layer.shape[1:])
    return normalize(torch.where(alone.view(layer.shape[1:]), layer, mean), dim=0)


def angles(values: Tensor, scale: float | Sequence[float]) -> Tensor:
    """Map values ``(D, h, w)`` to unit vectors ``(2 D, h, w)``, whose cosine decreases as the values differ more."""
    turned = values * torch.as_tensor(scale, dtype=torch.float32).view(-1, 1, 1)
    return torch.cat([turned.cos(), turned.sin()]) / len(values) ** 0.5


def position(score: Tensor) -> Tensor:
    """Encode each cell's height and distance from the foreground's middle axis as unit vectors; see :func:`angles`.

    Left and right are not distinguished, so a mirrored image has the same parts.
    """
    rows, columns = score.shape
    inside = (score >= 0.5).float()
    x, y, spread = _centre(inside if inside.any() else torch.ones_like(inside))
    unit = spread.clamp(min=1)
    across = ((torch.arange(columns) - x) / unit).abs()
    down = (torch.arange(rows) - y) / unit
    place = torch.stack([across.expand(rows, -1), down[:, None].expand(-1, columns)])
    return angles(place, POSITION_ANGLE)


def _centre(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the centre of mass (x, y) of a map and the standard deviation around it, averaged over both axes."""
    area, across, down = weight.sum(), weight.sum(0), weight.sum(1)
    x, y = torch.arange(len(across)), torch.arange(len(down))
    at_x, at_y = (x * across).sum() / area, (y * down).sum() / area
    variance = ((x - at_x) ** 2 * across).sum() + ((y - at_y) ** 2 * down).sum()
    return at_x, at_y, (variance / (2 * area)).sqrt()
