"""Find the parts of a part model in the frame of an image in which the model finds most of its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from math import log2, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partzoo.discovery.learned import LearnedFinder, Matched, MatchedImage
from partzoo.discovery.vocabulary import PartVocabulary
from partzoo.images.opening import OpenedImage
from partzoo.parts.parts import Parts

ENOUGH = 0.9  # quality from which no other frame is tried
SIDE = 0.5  # side of the frames that are tried first, as a share of the side of a square of the image's area
STEP = 0.5  # distance between these frames, as a share of their side
SHIFTS = (0.25, 0.15, 0.1)  # distances of the neighbours that are tried in each round, as shares of a frame's side
LARGER = 0.03  # quality that twice the side is worth
ZOOM = 1.5  # how much larger and smaller other neighbours are, as a multiple of these distances

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive


@dataclass(frozen=True, eq=False)
class FramedImage(MatchedImage):
    """One frame of an image as a learned part model sees it.

    Attributes:
        box: the frame.
        size: height and width of the whole image.
    """

    box: Box = (0, 0, 0, 0)
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Framed(Matched):
    """What a part model found in one frame, ``box``, of an image."""

    box: Box


class FramedFinder(LearnedFinder):
    """A finder of learned parts for objects that fill any share of the image, down to about a tenth of it.

    The whole image is looked at first. If the model's parts are not clearly there, square frames all over the image are
    tried, and then frames near the best one, as long as more of the parts appear. Outside of the frame that is chosen
    everything is background. Of several objects only one is found.
    """

    def look(
        self,
        image: OpenedImage,
        category: int | None = None,
        encoded: Matched | None = None,
        mask: np.ndarray | None = None,
    ) -> FramedImage:
        if isinstance(encoded, Framed):
            return self._framed(image, encoded.box, category, mask, encoded)
        height, width = image.size
        best = self._framed(image, (0, 0, width, height), category, mask)
        if mask is not None or best.quality >= ENOUGH:
            return best
        for box in frames(image.size):
            best = max(best, self._framed(image, box, category), key=_worth)
        for shift in SHIFTS:
            for box in neighbours(best.box, image.size, shift):
                best = max(best, self._framed(image, box, category), key=_worth)
        return best

    def kept(self, look: MatchedImage) -> Matched:
        return Framed(look.maps, look.descriptors, look.box) if isinstance(look, FramedImage) else super().kept(look)

    def _framed(
        self,
        image: OpenedImage,
        box: Box,
        category: int | None,
        mask: np.ndarray | None = None,
        encoded: Matched | None = None,
    ) -> FramedImage:
        look = super().look(cut(image, box), category, encoded, mask)
        found = {field.name: getattr(look, field.name) for field in dataclasses.fields(look)}
        return FramedImage(**found, box=box, size=image.size)

    def label(self, image: OpenedImage, look: Any, vocabulary: PartVocabulary) -> Parts:
        parts = super().label(cut(image, look.box), look, vocabulary)
        if parts.size == image.size:
            return parts
        left, top, right, bottom = look.box
        labels = np.zeros(image.size, parts.labels.dtype)
        labels[top:bottom, left:right] = parts.labels

        def scores() -> np.ndarray:
            assert parts.scores is not None
            return spread(torch.tensor(parts.scores), look.box, image.size).numpy()

        return Parts(
            labels, k=parts.k, image=image.pixels, scores=scores, descriptors=parts.descriptors, names=parts.names,
            source=image.source, quality=parts.quality, confidences=parts.confidences,
        )  # fmt: skip

    def scores(self, look: Any, vocabulary: PartVocabulary, size: tuple[int, int]) -> Tensor:
        left, top, right, bottom = box = _at(size, look)
        return spread(super().scores(look, vocabulary, (bottom - top, right - left)), box, size)

    def foreground(self, look: Any, size: tuple[int, int]) -> np.ndarray:
        left, top, right, bottom = _at(size, look)
        found = np.zeros(size, np.float32)
        found[top:bottom, left:right] = super().foreground(look, (bottom - top, right - left))
        return found


def _at(size: tuple[int, int], look: FramedImage) -> Box:
    """Return the frame of a look in pixels of the image at another size, at least one pixel large."""
    (height, width), (rows, columns) = look.size, size
    left, top, right, bottom = look.box
    x, y = left * columns // width, top * rows // height
    return x, y, max(x + 1, right * columns // width), max(y + 1, bottom * rows // height)


def _worth(look: FramedImage) -> float:
    """Return the quality of a frame, with a bonus for its size: of frames that show all parts, the larger is better."""
    left, top, right, bottom = look.box
    return look.quality + LARGER * log2(max(right - left, bottom - top))


def cut(image: OpenedImage, box: Box) -> OpenedImage:
    """Return a frame of an image as an image."""
    left, top, right, bottom = box
    return dataclasses.replace(image, pixels=image.pixels[top:bottom, left:right])


def spread(scores: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Put scores ``(K + 1, h, w)`` of a frame into an image of a size, which is background elsewhere."""
    left, top, right, bottom = box
    found = torch.zeros(len(scores), *size)
    found[0] = 1
    found[:, top:bottom, left:right] = scores
    return found


def frames(size: tuple[int, int]) -> Iterator[Box]:
    """Yield square frames of one size that cover an image, evenly spaced in each direction."""
    side = min(max(1, round(SIDE * sqrt(size[0] * size[1]))), *size)
    rows, columns = (np.linspace(0, whole - side, 1 + round((whole - side) / (STEP * side))) for whole in size)
    for top in rows.round().astype(int).tolist():
        for left in columns.round().astype(int).tolist():
            yield left, top, left + side, top + side


def neighbours(box: Box, size: tuple[int, int], shift: float) -> Iterator[Box]:
    """Yield square frames near a frame and inside the image: shifted by a share of its side, smaller, or larger."""
    left, top, right, bottom = box
    side, larger = min(right - left, bottom - top), 1 + ZOOM * shift
    sides = [(-shift, 0.0), (shift, 0.0), (0.0, -shift), (0.0, shift)]
    corners = [(x, y) for x in (-shift, shift) for y in (-shift, shift)]
    smaller = [(*place, 1 / larger) for place in [(0.0, 0.0), *corners]]
    for x, y, zoom in [(*place, 1.0) for place in sides] + smaller + [(0.0, 0.0, larger)]:
        new = min(max(1, round(zoom * side)), *size)
        corner = [
            round(min(max((low + high) / 2 + move * side - new / 2, 0), whole - new))
            for low, high, move, whole in ((left, right, x, size[1]), (top, bottom, y, size[0]))
        ]
        yield corner[0], corner[1], corner[0] + new, corner[1] + new
