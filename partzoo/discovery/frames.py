"""Detect plain frames around images, whose edges must not be mistaken for the border of the scene."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from partzoo.discovery.refine import resize

FRAME_TOLERANCE = 0.05  # largest difference between a frame's pixels and its colour, in 0..1


def within_frame(pixels: Tensor, multiple: int) -> tuple[slice, slice]:
    """Return the rows and columns of an image ``(3, h, w)`` inside its plain frame, as multiples of ``multiple``.

    A side has a frame if its outermost lines have one colour and end abruptly along nearly the whole side.
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
    return found[0], found[1]


def cropped(
    maps: Sequence[Tensor], lab: Tensor, inside: tuple[slice, slice], size: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """Crop feature maps, and colours on the last map's grid, to the rows and columns inside an image's frame.

    Args:
        maps: feature maps, ``(C, h_i, w_i)`` each.
        lab: CIELAB colours ``(3, h, w)``.
        inside: rows and columns in working pixels.
        size: ``(height, width)`` of the image in working pixels.
    """
    colours = resize(lab, maps[-1].shape[1:])
    found = []
    for each in (*maps, colours):
        rows, columns = (
            slice(s.start * n // total, s.stop * n // total)
            for s, n, total in zip(inside, each.shape[1:], size, strict=True)
        )
        found.append(each[:, rows, columns])
    return found[:-1], found[-1]
