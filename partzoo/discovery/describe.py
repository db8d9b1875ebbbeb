"""One picture at work: its features, colours and places on one grid, and the descriptors blended from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, normalize

from partzoo.discovery.foreground import Cells, foreground
from partzoo.discovery.refine import resize
from partzoo.discovery.vocabulary import Settings
from partzoo.image import Picture, working_size

CELL = 4  # pixels at work between neighbouring cells of the grid
FRAME_TOLERANCE = 0.05  # how far from its colour a frame's pixels may lie, in 0..1
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
    pixels, batch = at_work(picture, model, settings.size)
    with torch.inference_mode():
        if hasattr(model, "part_maps"):
            maps, descriptors = model.part_maps(batch)[0].float().cpu(), model.descriptors(batch)[0].float().cpu()
            return View(pixels, resize(pixels, maps.shape[1:]), maps=maps, descriptors=descriptors)
        maps = [layer[0].float().cpu() for layer in model.forward_intermediates(batch, list(settings.layers))]
        rgb = avg_pool2d(pixels, CELL)
        lab, score = cielab(rgb), torch.zeros(rgb.shape[1:])
        layers = tuple(normalize(resize(layer, score.shape).flatten(1).T, dim=1) for layer in maps)
        if (lab.amax((1, 2)) - lab.amin((1, 2))).max() >= BLANK:
            inside = within_frame(pixels, lcm(model.preprocess.multiple, CELL))
            rows, columns = (slice(s.start // CELL, s.stop // CELL) for s in inside)
            thing = None
            if settings.background == "objectness":
                thing = resize(model.objectness(*cropped(maps, lab, inside, pixels.shape[1:]))[None], lab[0, rows, columns].shape)[0].numpy()
            centred = torch.cat([layer - layer.mean(0) for layer in layers], 1).unflatten(0, score.shape)
            cells = Cells(lab[:, rows, columns].permute(1, 2, 0).numpy(), centred[rows, columns].numpy(), thing)
            score[rows, columns] = torch.from_numpy(foreground(settings.background, cells))
    return View(pixels, rgb, Blocks(layers, _angles(lab.flatten(1).T, COLOUR_ANGLE), _position(score)), score)


def at_work(picture: Picture, model: nn.Module, size: int) -> tuple[Tensor, Tensor]:
    """The picture at working size: ``(3, h, w)`` in 0..1, and ``(1, 3, h, w)`` as the model takes it."""
    preprocess = model.preprocess
    height, width = working_size(picture.size, size, lcm(preprocess.multiple, CELL))
    image = Image.fromarray(picture.pixels).resize((width, height), Image.Resampling[preprocess.interpolation.upper()])
    x = torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())
    return x.float() / 255, preprocess.normalize(x[None].to(next(model.parameters()).device))


def cropped(
    maps: list[Tensor], lab: Tensor, inside: tuple[slice, slice], size: tuple[int, int]
) -> tuple[list[Tensor], Tensor]:
    """The parts of feature maps, and of colours on the last map's grid, that lie inside a picture's frame."""
    colours = resize(lab, maps[-1].shape[1:])
    found = []
    for each in (*maps, colours):
        rows, columns = (
            slice(s.start * n // total, s.stop * n // total) for s, n, total in zip(inside, each.shape[1:], size, strict=True)
        )
        found.append(each[:, rows, columns])
    return found[:-1], found[-1]


def within_frame(pixels: Tensor, multiple: int) -> tuple[slice, slice]:
    """Rows and columns inside the plain frame around a picture ``(3, h, w)``, in multiples of so many pixels.

    A side has a frame where its outermost lines are of one colour and end abruptly, nearly all along.
    """
    found = []
    for axis in (1, 2):
        lines = pixels.movedim(axis, 1)
        length = lines.shape[1]
        widths = []
        for side in (lines, lines.flip(1)):
            near = side[:, : length // 4 + 4]
            colour = near[:, :1].median(2, keepdim=True).values
            other = ((near - colour).abs().amax(0) > FRAME_TOLERANCE).float().mean(1)
            first = int((other > 0.05).float().argmax())
            is_frame = first <= length // 4 and other[first : first + 4].max() > 0.7
            widths.append(-(-first // multiple) * multiple if is_frame else 0)
        found.append(slice(widths[0], length - widths[1]))
    return tuple(found)


def cielab(rgb: Tensor) -> Tensor:
    """sRGB ``(3, ...)`` in 0..1 -> CIELAB (D65), L 0..100."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = torch.tensordot(_XYZ, linear, dims=1).unbind()
    x, y, z = (torch.where(t > 216 / 24389, t ** (1 / 3), t * (24389 / 27 / 116) + 16 / 116) for t in (x, y, z))
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
) / torch.tensor([0.95047, 1, 1.08883])[:, None]  # fmt: skip


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
