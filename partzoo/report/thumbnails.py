"""Reduce an image and its labels to a few kilobytes of text, for a web page."""

from __future__ import annotations

import io
from base64 import b64encode

import numpy as np
from PIL import Image

from partzoo.parts.parts import Parts

SIDES = (320, 240, 180, 128, 96, 64)  # longer sides in pixels, tried in this order until an image fits its room
QUALITY = 80
PAPER = 238  # grey value that stands for an image that is unknown


def thumbnail(parts: Parts, room: int) -> tuple[tuple[int, int], str, str]:
    """Reduce parts and their image, as little as the room demands.

    Args:
        parts: parts of an image; without the image, the thumbnail is grey.
        room: characters that the two texts may have together. The smallest thumbnail is returned though it has more.

    Returns:
        ``(height, width)`` of the thumbnail, its JPEG file in base64, and its labels as :func:`runs`.
    """
    for side in SIDES:
        height, width = _fitted(parts.size, side)
        image, labels = _jpeg(parts.image, (height, width)), runs(_nearest(parts.labels, (height, width)))
        if len(image) + len(labels) <= room:
            break
    return (height, width), image, labels


def runs(labels: np.ndarray) -> str:
    """Encode labels row by row as pairs of a label and how often it repeats.

    Each number is written in groups of seven bits, the lowest first; a byte of 128 or more is followed by another one.

    Args:
        labels: integers of any shape.

    Returns:
        The bytes in base64.
    """
    flat = labels.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff([*starts, flat.size])
    data = bytearray()
    for number in np.stack([flat[starts], lengths], axis=1).ravel().tolist():
        while number > 127:
            data.append(number & 127 | 128)
            number >>= 7
        data.append(number)
    return b64encode(data).decode()


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the size with the longer side reduced to ``side``; smaller images keep theirs."""
    scale = min(1, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _jpeg(image: np.ndarray | None, size: tuple[int, int]) -> str:
    if image is None:
        small = Image.new("RGB", size[::-1], (PAPER,) * 3)
    else:
        small = Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY)
    return b64encode(file.getvalue()).decode()


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the labels at the centres of the pixels of an image of another size."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(labels.shape, size, strict=True))
    return labels[rows[:, None], columns]
