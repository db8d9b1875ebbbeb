"""Label maps -> pictures, with Pillow and numpy only."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from partzoo.errors import UsageError

# Okabe and Ito (jfly.uni-koeln.de/color) without black, then Paul Tol's "muted" (personal.sron.nl/~pault) where it
# adds something: told apart with all common kinds of colour blindness.
COLOURS = (
    (230, 159, 0),
    (0, 114, 178),
    (240, 228, 66),
    (204, 121, 167),
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (136, 34, 85),
    (153, 153, 51),
    (51, 34, 136),
    (221, 221, 221),
    (68, 170, 153),
)
SMALLEST_NUMBERED = 48  # below this side a digit hides more than it tells
NUMBER_GRID = 160


def palette(k: int) -> np.ndarray:
    """Colours of the labels 0..k.

    Returns:
        ``(k + 1, 3)`` uint8: black for the background, then one colour per part. The first twelve are chosen by hand;
        the rest step round the hues by the golden angle while lightness and saturation change.
    """
    colours = [(0, 0, 0), *COLOURS[:k]]
    for i in range(len(COLOURS), k):
        hue, saturation = (i * 0.6180339887) % 1, (0.9, 0.55)[i // 3 % 2]
        colours.append(tuple(round(255 * c) for c in colorsys.hls_to_rgb(hue, (0.35, 0.55, 0.75)[i % 3], saturation)))
    return np.array(colours, np.uint8)


def overlay(
    image: np.ndarray | None,
    labels: np.ndarray,
    k: int,
    *,
    alpha: float = 0.55,
    outlines: bool = True,
    numbers: bool = True,
) -> Image.Image:
    """Colour the parts of a picture.

    Args:
        image: ``(H, W, 3)`` uint8, or None for the parts alone on white.
        labels: ``(H, W)`` integers, 0 background, 1..k parts.
        k: how many parts there could be.
        alpha: strength of the colours, 0..1.
        outlines: draw lines between parts.
        numbers: write each part's number inside it.

    Returns:
        RGB PIL image ``(H, W)``.

    Raises:
        UsageError: alpha is outside 0..1.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha={alpha} must lie in 0..1.")
    colours = palette(k)
    if image is None:
        colours[0] = 255
        canvas = colours[labels]
    else:
        strength = np.full((k + 1, 1), round(256 * alpha), np.uint16)
        strength[0] = 0
        mixed = image * (256 - strength)[labels] + (colours * strength)[labels]
        canvas = (mixed >> 8).astype(np.uint8)
    if outlines:
        canvas[outline(labels, max(1, round(max(labels.shape) / 400)))] = 255
    picture = Image.fromarray(canvas)
    if numbers and min(labels.shape) >= SMALLEST_NUMBERED:
        _write_numbers(picture, labels, colours)
    return picture


def outline(labels: np.ndarray, width: int = 1) -> np.ndarray:
    """``(H, W)`` bool: the lines, about ``width`` pixels wide, where labels change."""
    lines = np.zeros(labels.shape, bool)
    lines[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    lines[1:] |= labels[1:] != labels[:-1]
    for axis in (0, 1):
        thin = lines.copy()
        for step in range(1, width):
            shift = step // 2 + 1 if step % 2 else -(step // 2)
            lines |= _shifted(thin, shift, axis)
    return lines


def number_points(labels: np.ndarray) -> dict[int, tuple[int, int]]:
    """Where to write each part's number: a pixel (x, y) of the part, well inside it and near its centroid.

    Returns:
        Present part -> (x, y).
    """
    step = -(-max(labels.shape) // NUMBER_GRID)
    small = labels[step // 2 :: step, step // 2 :: step] if min(labels.shape) > step else labels[::step, ::step]
    depth = _depth(small)
    points = {}
    for part in np.unique(labels[labels > 0]).tolist():
        ys, xs = np.nonzero(labels == part)
        x, y = xs.mean(), ys.mean()
        rows, columns = np.nonzero(small == part)
        if len(rows):
            depths = depth[rows, columns]
            deep = depths >= 0.7 * depths.max()
            rows, columns = rows[deep] * step + step // 2, columns[deep] * step + step // 2
            best = np.argmin((columns - x) ** 2 + (rows - y) ** 2)
            x, y = columns[best], rows[best]
        nearest = np.argmin((xs - x) ** 2 + (ys - y) ** 2)
        points[part] = (int(xs[nearest]), int(ys[nearest]))
    return points


def _depth(labels: np.ndarray) -> np.ndarray:
    """Steps to the nearest other label or the picture's edge, ``(h, w)``."""
    inside = np.pad(labels > 0, 1)
    for axis in (0, 1):
        for shift in (-1, 1):
            inside &= np.pad(labels, 1) == np.roll(np.pad(labels, 1), shift, axis)
    depth = np.zeros(inside.shape, np.int32)
    while inside.any():
        depth += inside
        inside = inside & np.logical_and.reduce([np.roll(inside, s, a) for a in (0, 1) for s in (-1, 1)])
    return depth[1:-1, 1:-1]


def _shifted(mask: np.ndarray, shift: int, axis: int) -> np.ndarray:
    """``mask`` moved by ``shift`` pixels, nothing wrapping round."""
    moved = np.zeros_like(mask)
    if shift >= mask.shape[axis]:
        return moved
    target, source = (slice(shift, None), slice(None, -shift)) if shift > 0 else (slice(None, shift), slice(-shift, None))
    if axis:
        moved[:, target] = mask[:, source]
    else:
        moved[target] = mask[source]
    return moved


def _write_numbers(picture: Image.Image, labels: np.ndarray, colours: np.ndarray) -> None:
    size = min(max(round(max(labels.shape) / 26), 11), max(round(min(labels.shape) / 4), 11))
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(picture)
    for part, point in number_points(labels).items():
        draw.text(
            point, str(part), font=font, anchor="mm", fill="white", stroke_fill="black", stroke_width=max(1, size // 8)
        )
