"""One picture at work: its features, colours and places on one grid, and the descriptors blended from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from partzoo.discovery.foreground import Cells, foreground
from partzoo.discovery.refine import resize
from partzoo.discovery.vocabulary import Settings
from partzoo.image import Picture, working_size

CELL = 4  # pixels at work between neighbouring cells of the grid
BLANK = 2.0  # a picture whose CIELAB channels all span less than this holds nothing to tell apart
COLOUR_ANGLE = (0.02, 0.03, 0.03)  # radians per unit of L, a, b
POSITION_ANGLE = 0.5  # radians per standard deviation of the foreground's cells


@dataclass(frozen=True, eq=False)
class Blocks:
    """What is known of N cells, block by block.

    Attributes:
        layers: unit features ``(N, C)`` of each chosen layer.
        colour: ``(N, 6)`` unit vectors whose dot products fall with the difference of the colours.
        position: ``(N, 4)``, likewise with the distance of the places.
    """

    layers: tuple[Tensor, ...]
    colour: Tensor
    position: Tensor

    def __len__(self) -> int:
        return len(self.colour)

    def at(self, index: Tensor) -> Blocks:
        """The cells of an index or mask."""
        return Blocks(tuple(layer[index] for layer in self.layers), self.colour[index], self.position[index])

    @staticmethod
    def join(blocks: Sequence[Blocks]) -> Blocks:
        layers = tuple(torch.cat(layer) for layer in zip(*(b.layers for b in blocks), strict=True))
        return Blocks(layers, torch.cat([b.colour for b in blocks]), torch.cat([b.position for b in blocks]))

    def means(self) -> Tensor:
        """Mean features ``(C of all layers,)``; zeros where there are no cells."""
        return torch.cat([layer.sum(0) / max(len(self), 1) for layer in self.layers])

    def descriptors(self, means: Tensor, weights: tuple[float, ...]) -> Tensor:
        """Unit descriptors ``(N, D)``: centred features, colour and position side by side, each of length
        ``sqrt(weight)``, so that a cosine is the weighted sum of the blocks' cosines."""
        centred = means.split([layer.shape[1] for layer in self.layers])
        blocks = [normalize(layer - mean, dim=1) for layer, mean in zip(self.layers, centred, strict=True)]
        blocks += [self.colour, self.position]
        return torch.cat([w**0.5 * block for w, block in zip(weights, blocks, strict=True) if w > 0], dim=1)


@dataclass(frozen=True, eq=False)
class View:
    """A picture at work.

    Attributes:
        pixels: ``(3, h, w)`` float32, 0..1, at working size.
        rgb: ``(3, rows, columns)``, their mean in each cell.
        blocks: of the grid's cells, row by row; None with a learned part model.
        score: ``(rows, columns)``, foreground from 0.5 on.
        maps: ``(K + 1, rows, columns)`` of a learned part model, background first; else None.
        descriptors: ``(K + 1, D)`` of a learned part model; else None.
    """

    pixels: Tensor
    rgb: Tensor
    blocks: Blocks | None = None
    score: Tensor | None = None
    maps: Tensor | None = None
    descriptors: Tensor | None = None

    @property
    def inside(self) -> Tensor:
        """``(N,)`` bool, the foreground's cells."""
        return (self.score >= 0.5).flatten()

    def thinned(self, count: int, seed: int) -> View:
        """Without pixels, and with the foreground's part of ``count`` cells drawn from the whole grid."""
        nothing = self.pixels[:, :0, :0]
        if self.blocks is None:
            return View(nothing, nothing, maps=self.maps, descriptors=self.descriptors)
        inside = self.inside.nonzero()[:, 0]
        drawn = torch.randperm(len(inside), generator=torch.Generator().manual_seed(seed))
        share = min(count / self.score.numel(), 1)
        kept = inside[drawn[: round(share * len(inside))].sort().values]
        return View(nothing, nothing, self.blocks.at(kept), torch.ones(len(kept)))


def look(picture: Picture, model: nn.Module, settings: Settings) -> View:
    """Run the model on a picture, alone, so that no other picture can change what comes out."""
    preprocess = model.preprocess
    height, width = working_size(picture.size, settings.size, lcm(preprocess.multiple, CELL))
    resample = Image.Resampling[preprocess.interpolation.upper()]
    image = np.asarray(Image.fromarray(picture.pixels).resize((width, height), resample))
    rows, columns = grid = height // CELL, width // CELL
    x = torch.from_numpy(image.transpose(2, 0, 1).copy())
    pixels = x.float() / 255
    rgb = pixels.unflatten(1, (rows, CELL)).unflatten(3, (columns, CELL)).mean((2, 4))
    lab = cielab(image).reshape(rows, CELL, columns, CELL, 3).mean((1, 3))
    batch = preprocess.normalize(x[None].to(next(model.parameters()).device))
    with torch.inference_mode():
        if hasattr(model, "part_maps"):
            maps, descriptors = model.part_maps(batch)[0].float().cpu(), model.descriptors(batch)[0].float().cpu()
            return View(pixels, resize(pixels, maps.shape[1:]), maps=maps, descriptors=descriptors)
        found = model.forward_intermediates(batch, list(settings.layers))
        layers = tuple(normalize(resize(m[0].float().cpu(), grid).flatten(1).T, dim=1) for m in found)
    if np.ptp(lab.reshape(-1, 3), axis=0).max() < BLANK:
        score = np.zeros(grid, np.float32)
    else:
        centred = torch.cat([layer - layer.mean(0) for layer in layers], 1).unflatten(0, grid)
        score = foreground(settings.background, Cells(lab, centred.numpy()))
    score = torch.from_numpy(score)
    colour = _angles(torch.from_numpy(lab).flatten(0, 1), COLOUR_ANGLE)
    return View(pixels, rgb, Blocks(layers, colour, _position(score)), score)


def cielab(pixels: np.ndarray) -> np.ndarray:
    """sRGB ``(..., 3)`` uint8 -> CIELAB (D65) float32, L 0..100."""
    xyz = _LINEAR[pixels] @ _XYZ
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * (24389 / 27 / 116) + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


_SRGB = np.arange(256) / 255
_LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4).astype(np.float32)
_XYZ = (
    np.array([[0.4124564, 0.2126729, 0.0193339], [0.3575761, 0.7151522, 0.1191920], [0.1804375, 0.0721750, 0.9503041]])
    / [0.95047, 1, 1.08883]
).astype(np.float32)  # fmt: skip


def _angles(values: Tensor, scale) -> Tensor:
    """Values ``(N, D)`` as unit vectors ``(N, 2 D)``: their cosine falls with the difference of the values."""
    angles = values * torch.as_tensor(scale, dtype=torch.float32)
    return torch.cat([angles.cos(), angles.sin()], dim=1) / values.shape[1] ** 0.5


def _position(score: Tensor) -> Tensor:
    """Places relative to the foreground's centre, in units of its spread."""
    rows, columns = score.shape
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    place = torch.stack([x, y], -1).flatten(0, 1).float()
    inside = place[(score >= 0.5).flatten()]
    if not len(inside):
        inside = place
    spread = inside.var(0, correction=0).mean().sqrt().clamp(min=1)
    return _angles(((place - inside.mean(0)) / spread).clamp(-3, 3), POSITION_ANGLE)
