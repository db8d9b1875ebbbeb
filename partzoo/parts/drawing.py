"""Draw label maps, with Pillow and numpy only."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from partzoo.errors import UsageError
from partzoo.images.strips import rows_of

# Blended at 55 % with mid-grey, any two of the first eight differ by at least 20 units of CIELAB, and any two of the
# twelve by 15, for normal vision and as simulated for protanopia, deuteranopia and tritanopia (Machado et al. 2009);
# all stand out from the faded background. The colours of Okabe and Ito come as close as 9 units under this blending.
COLOURS = (
    (209, 162, 21),
    (0, 101, 250),
    (172, 255, 185),
    (131, 0, 117),
    (234, 255, 2),
    (57, 0, 255),
    (0, 249, 255),
    (255, 72, 146),
    (109, 63, 0),
    (28, 188, 86),
    (141, 134, 238),
    (101, 0, 165),
)
SMALLEST_NUMBERED = 48  # shortest side for numbers; in smaller images, digits would hide the parts
NUMBER_GRID = 160  # longest side of the subsampled labels in which positions for numbers are searched
SEEN_SIDE = 800  # longer side in pixels that makes an overlay large enough to view


def palette(k: int) -> np.ndarray:
    """Return the colours of the labels 0..k.

    Returns:
        ``(k + 1, 3)`` uint8, RGB: black for the background, then one colour for each part. The first twelve are fixed;
        further hues advance by the golden angle, with varying lightness and saturation.
    """
    colours = [(0, 0, 0), *COLOURS[:k]]
    for i in range(len(COLOURS), k):
        hue, saturation = (i * 0.6180339887) % 1, (0.9, 0.55)[i // 3 % 2]
        red, green, blue = colorsys.hls_to_rgb(hue, (0.35, 0.55, 0.75)[i % 3], saturation)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return np.array(colours, np.uint8)


def overlay(
    image: np.ndarray | None,
    labels: np.ndarray,
    k: int,
    *,
    alpha: float = 0.55,
    outlines: bool = True,
    numbers: bool = True,
    scale: int = 1,
    texts: Mapping[int, str] | None = None,
) -> Image.Image:
    """Draw parts in colour over an image.

    Args:
        image: ``(H, W, 3)`` uint8, or None to draw the parts alone on white.
        labels: ``(H, W)`` integers, 0 background, 1..k parts.
        k: number of parts, present or not.
        alpha: opacity of the colours, 0..1.
        outlines: whether to draw lines between parts.
        numbers: whether to write each part's number inside it; ignored if a side is shorter than 48 pixels.
        scale: factor of enlargement before drawing, which gives small images room for lines and numbers.
        texts: names to write instead of numbers, by the part's number, where the image is wide enough.

    Returns:
        RGB PIL image ``(H * scale, W * scale)``.

    Raises:
        UsageError: alpha is outside 0..1, or scale below 1.
    """
    if not 0 <= alpha <= 1 or scale < 1:
        raise UsageError(f"alpha={alpha} must be in 0..1, and scale={scale} at least 1.")
    if scale > 1:
        labels = enlarged(labels, scale)
        if image is not None:
            image = np.asarray(Image.fromarray(image).resize(labels.shape[::-1], Image.Resampling.LANCZOS))
    colours = palette(k)
    if image is None:
        colours[0] = 255
    lines = outline(labels, max(1, round(max(labels.shape) / 400))) if outlines else None
    drawn = Image.new("RGB", labels.shape[::-1])
    for rows in rows_of(*labels.shape):
        strip = colours[labels[rows]] if image is None else _tint(image[rows], colours, labels[rows], alpha)
        if lines is not None:
            strip[lines[rows]] = strip[lines[rows]] // 4 + 191
        drawn.paste(Image.fromarray(strip), (0, rows.start))
    if numbers and min(labels.shape) >= SMALLEST_NUMBERED:
        _write_numbers(drawn, labels, texts or {})
    return drawn


def enlarged(labels: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge labels to ``(H * scale, W * scale)`` with smooth outlines.

    Each pixel gets the label whose bicubically enlarged mask is highest there.
    """
    first, *others = np.flatnonzero(np.bincount(labels.ravel()))  # np.unique would import numpy.ma
    best = _enlarged_mask(labels == first, scale).copy()
    winner = np.full(best.shape, first, labels.dtype)
    for label in others:
        mask = labels == label
        rows, columns = (_around(mask.any(axis), scale) for axis in (1, 0))
        height = _enlarged_mask(mask[rows[0], columns[0]], scale)
        there, highest = winner[rows[1], columns[1]], best[rows[1], columns[1]]
        there[height > highest] = label
        np.maximum(highest, height, out=highest)
    return winner


def _around(line: np.ndarray, scale: int) -> tuple[slice, slice]:
    """Return where ``line`` is True, and what a bicubic kernel reaches from there; second, the same enlarged."""
    places = np.flatnonzero(line)
    first, last = max(int(places[0]) - 3, 0), min(int(places[-1]) + 4, len(line))
    return slice(first, last), slice(first * scale, last * scale)


def _enlarged_mask(mask: np.ndarray, scale: int) -> np.ndarray:
    size = (mask.shape[1] * scale, mask.shape[0] * scale)
    return np.asarray(Image.fromarray(mask * np.uint8(255)).resize(size, Image.Resampling.BICUBIC))


def scale_to_see(size: tuple[int, int]) -> int:
    """Return the factor that enlarges the longer side of an overlay to about 800 pixels; 1 for larger images."""
    return max(1, round(SEEN_SIDE / max(size)))


def outline(labels: np.ndarray, width: int = 1) -> np.ndarray:
    """Return the mask ``(H, W)`` bool of the lines, about ``width`` pixels wide, along which labels change."""
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
    """Choose the position of each part's number: a pixel (x, y) of the part, well inside it and near its centroid.

    Returns:
        Dictionary from the number of each present part to (x, y).
    """
    step = -(-max(labels.shape) // NUMBER_GRID)
    start = min(step // 2, (min(labels.shape) - 1) // 2)
    small = labels[start::step, start::step]
    depth = _depth(small)
    points = {}
    for part in np.flatnonzero(np.bincount(labels.ravel())).tolist():
        y, x = np.nonzero(small == part)
        if len(y):
            middle_y, middle_x = y.mean(), x.mean()
            depths = depth[y, x]
            inside = depths >= 0.7 * depths.max()
            y, x = y[inside], x[inside]
            best = np.argmin((y - middle_y) ** 2 + (x - middle_x) ** 2)
            points[part] = (int(x[best]) * step + start, int(y[best]) * step + start)
        else:  # the part is so thin that it falls between the grid's points
            y, x = divmod(int(np.argmax(labels == part)), labels.shape[1])
            points[part] = (x, y)
    points.pop(0, None)
    return points


def _tint(image: np.ndarray, colours: np.ndarray, labels: np.ndarray, alpha: float) -> np.ndarray:
    """Blend the parts' colours with the image in grey, because its hues would alter them; fade the background."""
    strength = np.float32(alpha)
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)
    shade, tints, outside = grey * (1 - strength), colours * strength, labels == 0
    drawn = np.empty_like(image)
    for channel in range(3):  # numpy is four times as slow over a last axis of three
        faded = (image[..., channel] + grey) * np.float32(0.35)
        drawn[..., channel] = np.where(outside, faded, shade + tints[:, channel].take(labels))
    return drawn


def _depth(labels: np.ndarray) -> np.ndarray:
    """Return the distance in steps, ``(h, w)``, to the nearest pixel with a different label or outside the image."""
    padded = np.pad(labels, 1)
    inside = padded > 0
    inner = inside[1:-1, 1:-1]  # the frame around it stays False
    for neighbour in _neighbours(padded):
        inner &= neighbour == labels
    depth = np.zeros(labels.shape, np.int32)
    while inner.any():
        depth += inner
        inner &= np.logical_and.reduce(_neighbours(inside))
    return depth


def _neighbours(padded: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return views ``(h, w)`` of the pixels above, below, left and right of each one inside a frame of one pixel."""
    return padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]


def _shifted(mask: np.ndarray, shift: int, axis: int) -> np.ndarray:
    """Move ``mask`` by ``shift`` pixels along an axis, without wrapping around."""
    moved = np.zeros_like(mask)
    if shift >= mask.shape[axis]:
        return moved
    target, source = (
        (slice(shift, None), slice(None, -shift)) if shift > 0 else (slice(None, shift), slice(-shift, None))
    )
    if axis:
        moved[:, target] = mask[:, source]
    else:
        moved[target] = mask[source]
    return moved


def _write_numbers(image: Image.Image, labels: np.ndarray, texts: Mapping[int, str]) -> None:
    size = min(max(round(max(labels.shape) / 26), 11), max(round(min(labels.shape) / 4), 11))
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(image)
    for part, (x, y) in number_points(labels).items():
        text = texts.get(part, str(part))
        half = int(draw.textlength(text, font)) // 2
        if 2 * half < image.width:
            x = min(max(x, half), image.width - half)
        else:
            text = str(part)
        draw.text(
            (x, y),
            text,
            font=font,
            anchor="mm",
            fill="white",
            stroke_fill="black",
            stroke_width=max(1, size // 8),
        )
