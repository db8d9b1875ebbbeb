"""Open an image of a collection, in any form in which a source or a batch holds it."""

from __future__ import annotations

from typing import Any

import numpy as np

from partzoo.collections.storage import Stored, image_at, plain
from partzoo.images.opening import OpenedImage, open_image
from partzoo.limits import MAX_BYTES, MAX_PIXELS


def open_record(image: Any, key: str, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> OpenedImage:
    """Open an image of a collection; its name in messages is its key.

    Args:
        image: path, address of the web or of fsspec, :class:`partzoo.collections.storage.Stored`, or anything else that
            :func:`partzoo.images.opening.open_image` accepts. A grey array may have a leading axis, ``(1, H, W)``,
            which Ray Data adds in a block that also holds colour images.
        key: the image's key.
        max_pixels, max_bytes: largest image to decode and largest file to read.

    Raises:
        ImageError: the image is missing, damaged, too large or not an image.
    """
    if isinstance(image, str):
        image = image_at(plain(image))
    if isinstance(image, Stored):
        image = image.read(max_bytes)
    if isinstance(image, np.ndarray) and image.ndim == 3 and len(image) == 1 and image.shape[2] not in (1, 3, 4):
        image = image[0]
    return open_image(image, name=key, max_pixels=max_pixels, max_bytes=max_bytes)
