"""One image at work: its features, colours and places on one grid, and the descriptors blended from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, lcm

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, normalize

from partzoo.discovery.foreground import Cells, foreground, halved_at
from partzoo.discovery.refine import resize
from partzoo.discovery.vocabulary import Settings
from partzoo.errors import UsageError
from partzoo.images.opening import OpenedImage
from partzoo.images.preprocess import working_size
from partzoo.models.foreground import ForegroundModel

DOUBTFUL = 0.7  # quality below which a foreground is doubtful, see docs/discovery.md
LIKELIEST = 0.6  # of the highest probability, above which counts as foreground where nothing reaches one half
CELL = 4  # pixels at work between neighbouring cells of the grid
FRAME_TOLERANCE = 0.05  # how far from its colour a frame's pixels may lie, in 0..1
BLANK = 2.0  # an image whose CIELAB channels all span less than this holds nothing to tell apart
COLOUR_ANGLE = (0.02, 0.03, 0.03)  # radians per unit of L, a, b
POSITION_ANGLE = 0.7  # radians per unit of place, see position()


@dataclass(frozen=True, eq=False)
class View:
    """An image at work.

    Attributes:
        pixels: ``(3, H, W)`` float32, 0..1, at working size.
        layers: unit features ``(C, h_i, w_i)`` of each chosen layer, on its own grid.
        colour: ``(6, h, w)`` unit vectors whose dot products fall with the difference of the colours.
        position: ``(4, h, w)``, likewise with the distance of the places.
        score: ``(h, w)``, foreground from 0.5 on.
        quality: how sure the foreground is, 0..1.
        maps: ``(K + 1, h, w)`` of a learned part model, background first; else None.
        descriptors: ``(K + 1, D)`` of a learned part model; else None.
        match: size -> maps of a learned part model at that size, upsampled as the model has it; else None.
    """

    pixels: Tensor
    layers: tuple[Tensor, ...] = ()
    colour: Tensor | None = None
    position: Tensor | None = None
    score: Tensor | None = None
    quality: float = 1.0
    maps: Tensor | None = None
    descriptors: Tensor | None = None
    match: Callable[[tuple[int, int]], Tensor] | None = None

    @property
    def inside(self) -> Tensor:
        """``(rows, columns)`` bool: cells of the last layer's grid that are mostly foreground; if none is, those that
        have any."""
        share = resize(((self.score >= 0.5).float())[None], self.layers[-1].shape[1:])[0]
        return share >= 0.5 if (share >= 0.5).any() else share > 0

    @property
    def blocks(self) -> tuple[Tensor, ...]:
        """Layers, colour and position: unit vectors ``(C, rows, columns)``, each block on its own grid."""
        return *self.layers, self.colour, self.position

    def sample(self, count: int, seed: int, weights: Sequence[float]) -> Tensor:
        """Unit descriptors ``(n, D)`` of the foreground's cells among about ``count`` drawn from the last layer's grid.

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
        """Cosines ``(K, h, w)`` of the cells' descriptors with centres ``(K, D)``.

        They are computed on each block's own grid, then upsampled and added: the cosine is a sum over the blocks, and
        upsampling is linear.
        """
        found = torch.zeros(len(centres), *self.score.shape)
        channels = sum(len(block) for block in self.blocks)
        if centres.shape[1] != channels:
            raise UsageError(
                f"The vocabulary's descriptors have {centres.shape[1]} channels, this model's have {channels}: "
                "use the model that the vocabulary was fitted with."
            )
        centres = centres.split([len(block) for block in self.blocks], dim=1)
        for block, centre, weight in zip(self.blocks, centres, weights, strict=True):
            if weight and len(centre):
                maps = (centre @ block.flatten(1)).unflatten(1, block.shape[1:])
                found += weight**0.5 * resize(maps, found.shape[1:])
        return found


def look(
    image: OpenedImage,
    model: nn.Module,
    settings: Settings,
    category: int | None = None,
    seer: ForegroundModel | None = None,
) -> View:
    """Run the model on an image, alone, so that no other image can change what comes out.

    Args:
        image: what is looked at.
        model: an encoder or a part model.
        settings: sizes, layers and methods.
        category: the image's class, for a part model that has parts of several.
        seer: the foreground model that ``settings.background`` names, if it names one.
    """
    pixels, batch = at_work(image, model, settings.size)
    with torch.inference_mode():
        if hasattr(model, "part_maps"):
            return _learned_view(pixels, batch, model, category)
        knows_objects = settings.background == "objectness"
        maps = model.forward_intermediates(batch, None if knows_objects else list(settings.layers))
        maps = [layer[0].float() for layer in maps]
        chosen = [maps[i] for i in settings.layers] if knows_objects else maps
        layers = tuple(normalize(layer.cpu(), dim=0) for layer in chosen)
        lab = cielab(avg_pool2d(pixels, CELL))
        score, quality = torch.zeros(lab.shape[1:]), 0.0
        if (lab.amax((1, 2)) - lab.amin((1, 2))).max() >= BLANK:
            inside = within_frame(pixels, lcm(model.preprocess.multiple, CELL))
            rows, columns = (slice(s.start // CELL, s.stop // CELL) for s in inside)
            if seer is not None:
                found = seer.probability(_cut(image.pixels, inside, pixels.shape[1:]))
                found = resize(found[None], lab[0, rows, columns].shape)[0]
                quality = certainty(found)
                score[rows, columns] = at_least_something(found)
            else:
                cells = _cells(model, settings, maps, layers, lab, inside, pixels.shape[1:])
                score[rows, columns] = torch.from_numpy(foreground(settings.background, cells))
                quality = certainty(score)
        if settings.centre:
            layers = tuple(centred(layer, score) for layer in layers)
    return View(pixels, layers, angles(lab, COLOUR_ANGLE), position(score), score, quality)


def certainty(score: Tensor) -> float:
    """How sure a foreground is, 0..1: the intersection over union with the truth that its probabilities lead to expect.

    It is the sum of the probabilities inside over the area inside plus the sum of the probabilities outside.
    """
    inside = score >= 0.5
    if not inside.any():
        return 0.0
    return float(score[inside].sum() / (inside.sum() + score[~inside].sum()))


def at_least_something(found: Tensor) -> Tensor:
    """Probabilities bent so that an image in which nothing reaches one half still has its likeliest foreground."""
    threshold = min(0.5, LIKELIEST * float(found.max()))
    return torch.from_numpy(halved_at(found.numpy(), threshold))


def _learned_view(pixels: Tensor, batch: Tensor, model: nn.Module, category: int | None) -> View:
    classes = None if category is None else torch.tensor([category], device=batch.device)
    descriptors, maps = model.descriptors_and_maps(batch, classes)

    @torch.inference_mode()
    def match(size: tuple[int, int] | None) -> Tensor:
        return maps(size)[0].float().cpu()

    return View(pixels, maps=match(None), descriptors=descriptors[0].float().cpu(), match=match)


def _cells(
    model: nn.Module,
    settings: Settings,
    maps: list[Tensor],
    layers: Sequence[Tensor],
    lab: Tensor,
    inside: tuple[slice, slice],
    working: tuple[int, int],
) -> Cells:
    """What the methods that need no foreground model look at: the cells inside the frame."""
    rows, columns = (slice(s.start // CELL, s.stop // CELL) for s in inside)
    size = lab[0, rows, columns].shape
    thing = features = None
    if settings.background == "objectness":
        found = model.objectness(*cropped(maps, lab.to(maps[0].device), inside, working))
        thing = resize(found.float().cpu()[None], size)[0].numpy()
    elif settings.background == "ncut":
        found = cropped(layers, lab, inside, working)[0][-1]
        features = resize(found - found.mean((1, 2), keepdim=True), size).permute(1, 2, 0).numpy()
    return Cells(lab[:, rows, columns].permute(1, 2, 0).numpy(), features, thing)


def _cut(pixels: np.ndarray, inside: tuple[slice, slice], working: tuple[int, int]) -> np.ndarray:
    """The part of an image ``(H, W, 3)`` that lies inside its frame, which is given at working size."""
    rows, columns = (
        slice(round(s.start * n / total), round(s.stop * n / total))
        for s, n, total in zip(inside, pixels.shape[:2], working, strict=True)
    )
    cut = pixels[rows, columns]
    return cut if cut.size else pixels


def centred(layer: Tensor, score: Tensor) -> Tensor:
    """Features ``(C, h, w)`` less their mean over the image's foreground, of unit length.

    What all of a thing has in common says nothing of its parts, and differs between images with light and kind.
    """
    inside = resize((score >= 0.5).float()[None], layer.shape[1:])
    inside = inside if inside.any() else torch.ones_like(inside)
    return normalize(layer - (layer * inside).sum((1, 2), keepdim=True) / inside.sum(), dim=0)


def at_work(image: OpenedImage, model: nn.Module, size: int) -> tuple[Tensor, Tensor]:
    """The image at working size: ``(3, h, w)`` in 0..1, and ``(1, 3, h, w)`` as the model takes it."""
    preprocess = model.preprocess
    height, width = working_size(image.size, size, lcm(preprocess.multiple, CELL))
    resized = Image.fromarray(image.pixels).resize((width, height), Image.Resampling[preprocess.interpolation.upper()])
    x = torch.from_numpy(np.array(resized).transpose(2, 0, 1).copy())
    return x.float() / 255, preprocess.normalize(x[None].to(next(model.parameters()).device))


def cropped(
    maps: Sequence[Tensor], lab: Tensor, inside: tuple[slice, slice], size: tuple[int, int]
) -> tuple[list[Tensor], Tensor]:
    """The parts of feature maps, and of colours on the last map's grid, that lie inside an image's frame."""
    colours = resize(lab, maps[-1].shape[1:])
    found = []
    for each in (*maps, colours):
        rows, columns = (
            slice(s.start * n // total, s.stop * n // total)
            for s, n, total in zip(inside, each.shape[1:], size, strict=True)
        )
        found.append(each[:, rows, columns])
    return found[:-1], found[-1]


def within_frame(pixels: Tensor, multiple: int) -> tuple[slice, slice]:
    """Rows and columns inside the plain frame around an image ``(3, h, w)``, in multiples of so many pixels.

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


def angles(values: Tensor, scale: float | Sequence[float]) -> Tensor:
    """Values ``(D, h, w)`` as unit vectors ``(2 D, h, w)``: their cosine falls with the difference of the values."""
    turned = values * torch.as_tensor(scale, dtype=torch.float32).view(-1, 1, 1)
    return torch.cat([turned.cos(), turned.sin()]) / len(values) ** 0.5


def position(score: Tensor) -> Tensor:
    """Places as :func:`angles`: height and distance from the middle, in spreads of the foreground.

    Left and right are one, so that a mirrored image has the same parts.
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
    """Centre of mass (x, y) of a map and the standard deviation around it, mean of both axes."""
    area, across, down = weight.sum(), weight.sum(0), weight.sum(1)
    x, y = torch.arange(len(across)), torch.arange(len(down))
    at_x, at_y = (x * across).sum() / area, (y * down).sum() / area
    variance = ((x - at_x) ** 2 * across).sum() + ((y - at_y) ** 2 * down).sum()
    return at_x, at_y, (variance / (2 * area)).sqrt()
