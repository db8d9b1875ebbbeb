"""Go through large images in strips of rows, so that no second copy of one is ever whole in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags

if TYPE_CHECKING:
    from PIL import Image

PIXELS = 2**16  # number of pixels in a strip


def rows_of(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of each strip of an image, from the top."""
    step = max(PIXELS // width, 1)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def strips_of(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield the rows of each strip of a decoded image, and the strip."""
    for rows in rows_of(image.height, image.width):
        yield rows, image.crop((0, rows.start, image.width, rows.stop))


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of a decoded image, 1..8; 1 (upright) if it states none or its EXIF is damaged."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in range(1, 9) else 1
    except Exception:  # damaged blocks can raise errors of any type
        return 1


def empty(height: int, width: int, channels: int, orientation: int) -> tuple[np.ndarray, np.ndarray]:
    """Allocate the pixels of an image that is stored with an EXIF orientation.

    Args:
        height, width: size as it is stored.
        channels: number of channels.
        orientation: EXIF orientation, 1..8.

    Returns:
        The upright image ``(H, W, channels)`` uint8, where H and W are swapped for orientations from 5 on, and a view
        of it as it is stored, ``(height, width, channels)``.
    """
    size = (height, width) if orientation < 5 else (width, height)
    upright = np.empty((*size, channels), np.uint8)
    stored = upright if orientation < 5 else upright.swapaxes(0, 1)
    # Of the stored image's axes, these run against those of the upright one.
    down, across = orientation in (3, 4, 6, 7), orientation in (2, 3, 7, 8)
    return upright, stored[:: -1 if down else 1, :: -1 if across else 1]
