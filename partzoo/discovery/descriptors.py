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

    Those of a batch have a leading dimension B; they cannot be sampled.

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
        share = resize(inside_of(self.score), self.layers[-1].shape[-2:]).squeeze(-3)
        mostly = share >= 0.5
        return mostly | (share > 0) & ~mostly.any((-2, -1), keepdim=True)

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
        return self.joined(weights).flatten(1).T[cells]

    def joined(self, weights: Sequence[float]) -> Tensor:
        """Return the descriptors ``(D, rows, columns)`` of all cells of the last layer's grid; see :meth:`sample`."""
        grid = self.layers[-1].shape[-2:]
        parts = [w**0.5 * normalize(resize(b, grid), dim=-3) for b, w in zip(self.blocks, weights, strict=True)]
        return torch.cat(parts, dim=-3)

    def similarities(self, centres: Tensor, weights: Sequence[float]) -> Tensor:
        """Compute the cosines ``(K, h, w)`` of the cells' descriptors with centres ``(K, D)``.

        They are computed on the grid of each block, then upsampled and added: the cosine is a sum over the blocks, and
        upsampling is linear.
        """
        *batch, rows, columns = self.score.shape
        count = centres.shape[0]
        found = torch.zeros(*batch, count, rows, columns)
        widths = [block.shape[-3] for block in self.blocks]
        channels = sum(widths)
        if centres.shape[1] != channels:
            raise UsageError(
                f"The vocabulary's descriptors have {centres.shape[1]} channels, but this model's have {channels}: "
                "use the model that the vocabulary was fitted with."
            )
        for block, centre, weight in zip(self.blocks, centres.split(widths, dim=1), weights, strict=True):
            if weight and count:
                maps = (centre @ block.flatten(-2)).unflatten(-1, block.shape[-2:])
                found += weight**0.5 * resize(maps, (rows, columns))
        return found


def describe(pixels: Tensor, layers: Sequence[Tensor], score: Tensor, *, centre: bool = False) -> Descriptors:
    """Compute the descriptors of an image's cells, or of a batch's, whose tensors have a leading dimension B.

    Args:
        pixels: ``(3, H, W)``, 0..1, at working size.
        layers: unit features ``(C, h_i, w_i)``.
        score: ``(h, w)`` foreground score; a value of at least 0.5 is foreground.
        centre: whether to subtract the foreground's mean from the features.
    """
    kept = [centred(layer, score) for layer in layers] if centre else layers
    return completed(pixels, [coherent(layer, score) for layer in kept], score)


def completed(pixels: Tensor, layers: Sequence[Tensor], score: Tensor) -> Descriptors:
    """Return the descriptors that have these features; colour and position follow from the other arguments."""
    lab = cielab(avg_pool2d(pixels, CELL).movedim(-3, 0)).movedim(0, -3)
    return Descriptors(tuple(layers), angles(lab, COLOUR_ANGLE), position(score), score)


def inside_of(score: Tensor) -> Tensor:
    """Return the foreground ``(..., 1, h, w)`` of scores ``(..., h, w)``: 1 inside and 0 outside."""
    return (score >= 0.5).float().unsqueeze(-3)


def _or_everywhere(inside: Tensor) -> Tensor:
    """Return a foreground ``(..., h, w)``, or ones where it is empty."""
    return torch.where(inside.any((-2, -1), keepdim=True), inside, torch.ones_like(inside))


def centred(layer: Tensor, score: Tensor) -> Tensor:
    """Subtract the foreground's mean from features ``(C, h, w)``, and normalize them to unit length.

    What a whole object has in common does not distinguish its parts, and it varies between images with light and class.
    """
    inside = _or_everywhere(resize(inside_of(score), layer.shape[-2:]))
    mean = (layer * inside).sum((-2, -1), keepdim=True) / inside.sum((-2, -1), keepdim=True)
    return normalize(layer - mean, dim=-3)


def coherent(layer: Tensor, score: Tensor) -> Tensor:
    """Average each of the unit features ``(C, h, w)`` with similar ones on the same side of the foreground's outline.

    This is one step of attention without learned weights. It smooths each part and keeps parts that look different
    apart; it raised the agreement with label maps on dev splits (docs/discovery.md). For grids of more than 32 x 32
    cells, the keys and values are a coarser copy of the grid.

    Source: Buades, Coll and Morel, "A non-local algorithm for image denoising", CVPR 2005, applied to features.
    """
    rows, columns = (torch.sym_min(side, KEYS) for side in layer.shape[-2:])
    keys = normalize(resize(layer, (rows, columns)), dim=-3)
    inside = inside_of(score)
    sides = [(resize(inside, grid.shape[-2:]) >= 0.5).flatten(-3) for grid in (layer, keys)]
    cosines = layer.flatten(-2).mT @ keys.flatten(-2) / TEMPERATURE
    cosines.masked_fill_(sides[0].unsqueeze(-1) != sides[1].unsqueeze(-2), -torch.inf)
    alone = ~cosines.isfinite().any(-1)  # cells whose side is too thin for the coarser copy stay as they are
    mean = (keys.flatten(-2) @ cosines.softmax(-1).mT).unflatten(-1, layer.shape[-2:])
    alone = alone.unflatten(-1, layer.shape[-2:]).unsqueeze(-3)
    return normalize(torch.where(alone, layer, mean), dim=-3)


def angles(values: Tensor, scale: float | Sequence[float]) -> Tensor:
    """Map values ``(D, h, w)`` to unit vectors ``(2 D, h, w)``, whose cosine decreases as the values differ more."""
    turned = values * torch.as_tensor(scale, dtype=torch.float32).view(-1, 1, 1)
    return torch.cat([turned.cos(), turned.sin()], dim=-3) / values.shape[-3] ** 0.5


def position(score: Tensor) -> Tensor:
    """Encode each cell's height and distance from the foreground's middle axis as unit vectors; see :func:`angles`.

    Left and right are not distinguished, so a mirrored image has the same parts.
    """
    rows, columns = score.shape[-2:]
    x, y, spread = _centre(_or_everywhere((score >= 0.5).float()))
    unit = spread.clamp(min=1)
    across = ((torch.arange(columns) - x) / unit).abs()
    down = (torch.arange(rows) - y) / unit
    place = [across.unsqueeze(-2).expand(score.shape), down.unsqueeze(-1).expand(score.shape)]
    return angles(torch.stack(place, dim=-3), POSITION_ANGLE)


def _centre(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the centre of mass (x, y) of a map ``(..., h, w)`` and the standard deviation around it, averaged over
    both axes. Each is ``(..., 1)``."""
    across, down = weight.sum(-2), weight.sum(-1)
    area = across.sum(-1, keepdim=True)
    x, y = torch.arange(across.shape[-1]), torch.arange(down.shape[-1])
    at_x, at_y = ((place * sums).sum(-1, keepdim=True) / area for place, sums in ((x, across), (y, down)))
    variance = ((x - at_x) ** 2 * across).sum(-1, keepdim=True) + ((y - at_y) ** 2 * down).sum(-1, keepdim=True)
    return at_x, at_y, (variance / (2 * area)).sqrt()
