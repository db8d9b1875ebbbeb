"""Check and prepare foreground masks given by the caller, for one object or several."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from partzoo.errors import ImageError, UsageError, counted
from partzoo.files import expand_user, reading
from partzoo.images.decoding import pillow_limit, readable_formats
from partzoo.limits import MAX_PIXELS
from partzoo.parts.parts import Parts

HALF = 128  # value from which a pixel of a grey mask is foreground
VOID = 255  # white in a grey mask; in a mask of object numbers, a pixel that belongs to none


class Masks:
    """The masks of several images, each opened when it is indexed.

    Args:
        source: mask in any form that :func:`open_mask` accepts, a sequence of masks for many images, or None.
        count: number of images.
        single: whether there is a single image rather than a sequence of one.

    Raises:
        UsageError: the number of masks differs from the number of images.
    """

    def __init__(self, source: Any, count: int, single: bool) -> None:
        many = isinstance(source, Sequence) and not isinstance(source, (str, bytes))
        if source is not None and not single and not (many and len(source) == count):
            raise UsageError(f"mask= must be a sequence of {counted(count, 'mask')}, one for each image.")
        self._sources: Sequence[Any] = [source] if single else source if many else [None] * count

    def objects(self, index: int, size: tuple[int, int]) -> np.ndarray | None:
        """Return the object numbers ``(H, W)`` of an image, or None if no mask is given."""
        source = self._sources[index]
        return None if source is None else open_mask(source, size)

    def foreground(self, index: int, size: tuple[int, int]) -> np.ndarray | None:
        """Return ``(H, W)`` bool, true inside any object, or None if no mask is given."""
        objects = self.objects(index, size)
        return None if objects is None else objects > 0


def open_mask(source: Any, size: tuple[int, int]) -> np.ndarray:
    """Read a mask in any form as object numbers ``(H, W)``, unsigned, 0 for the background.

    Args:
        source: ``(H, W)`` array or tensor, PIL image, or path of an image; or a box ``(left, top, right, bottom)`` in
            pixels, as a sequence, array or tensor of four numbers; or a dictionary with such an array under
            ``"segmentation"``, as SAM's mask generator returns for each object. Booleans are one object, as are floats
            from 0.5 on. Integers are object numbers. In 8 bits, 255 is special: beside numbers from 1 to 127 alone, as
            in the masks of VOC, it is void and counts as background; otherwise, the mask is grey, with one object from
            128 on. If an image has transparency, its opacity is the mask.
        size: ``(H, W)`` of the image.

    Raises:
        ImageError: the file is missing or is not an image.
        UsageError: the mask differs in size from the image, or is not a mask.
    """
    values = values_of(source)
    if values.ndim == 1:
        return _box(values.tolist(), size)
    if values.shape != tuple(size):
        raise UsageError(
            f"The mask is {values.shape} and the image {tuple(size)} in height and width: they must agree."
        )
    if values.dtype.kind == "f":
        if np.isnan(values).any() or values.min(initial=0) < 0 or 0 < values.max(initial=0) < 0.5:
            raise UsageError(
                f"The mask holds {values.min():.3g} to {values.max():.3g}: floats must be 0 for the background and 0.5 "
                "or more for the object."
            )
        return (values >= 0.5).astype(np.uint8)
    if values.dtype.kind not in "biu" or (values.dtype.kind == "i" and values.min() < 0):
        raise UsageError(f"A mask must hold booleans, floats or object numbers of at least 0, not {values.dtype}.")
    if values.dtype == np.uint8 and values.max(initial=0) == VOID:
        numbers = np.where(values == VOID, 0, values)
        return (numbers if 0 < numbers.max() < HALF else values >= HALF).astype(np.uint8)
    return values.astype(_smallest(values.max(initial=0)))


def _smallest(number: int) -> np.dtype:
    """Return the smallest type of whole numbers from 0 to ``number``, since masks are as large as photographs."""
    return np.min_scalar_type(int(number))


def _box(source: Sequence, size: tuple[int, int]) -> np.ndarray:
    try:
        left, top, right, bottom = (round(float(edge)) for edge in source)
    except (TypeError, ValueError, OverflowError):  # text, NaN, infinity
        raise UsageError(
            f"mask={tuple(source)!s:.80} is not a box of four finite numbers: left, top, right, bottom."
        ) from None
    if not (0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]):
        raise UsageError(f"mask={tuple(source)} is not a box (left, top, right, bottom) inside {size[1]} x {size[0]}.")
    found = np.zeros(size, np.uint8)
    found[top:bottom, left:right] = 1
    return found


def values_of(source: Any, *, colours: bool = True) -> np.ndarray:
    """Return the ``(H, W)`` values of a mask or of labels, from a file, an image or an array, in their stored type.

    Without ``colours``, an image whose channels differ is an error, as its grey values number nothing.
    """
    if isinstance(source, Mapping):
        source = source.get("segmentation")
        if source is None or isinstance(source, (str, Mapping)):
            raise UsageError(
                "mask= is a dictionary whose 'segmentation' is not an array: pass what SAM's mask generator returns "
                "for one object, with output_mode='binary_mask'."
            )
    if isinstance(source, (str, os.PathLike)):
        path = expand_user(source)
        with reading(path, ImageError, "cannot be read as a mask", "check the file"), pillow_limit(MAX_PIXELS):
            with Image.open(path, formats=readable_formats()) as opened:
                return _of_image(opened, colours)
    if isinstance(source, Image.Image):
        return _of_image(source, colours)
    values = np.asarray(source.detach().cpu() if hasattr(source, "detach") else source)
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values


def _of_image(image: Image.Image, colours: bool) -> np.ndarray:
    if image.mode in ("RGBA", "LA"):
        return np.asarray(image.getchannel("A")) / np.float32(255)
    if image.mode == "RGB" and not colours and len({band.tobytes() for band in image.split()}) > 1:
        raise UsageError("Labels are a colour image: save the parts' numbers as a grey PNG, or one with a palette.")
    return np.asarray(image.convert("L") if image.mode == "RGB" else image)


def side_by_side(several: Sequence[Parts]) -> Parts:
    """Combine the parts of several objects in one image, which do not overlap; the first object's parts come first."""
    first = several[0]
    offsets = np.cumsum([0, *(each.k for each in several)])
    labels = np.zeros(first.size, _smallest(offsets[-1]))
    for each, offset in zip(several, offsets, strict=False):
        labels[each.labels > 0] = each.labels[each.labels > 0] + offset

    def scores() -> np.ndarray:
        maps = np.concatenate([each.scores[1:] for each in several if each.scores is not None])
        return np.concatenate([1 - maps.sum(0, keepdims=True), maps])

    return Parts(
        labels,
        k=int(offsets[-1]),
        image=first.image,
        scores=scores,
        descriptors=np.concatenate([each.descriptors for each in several if each.descriptors is not None]),
        source=first.source,
        confidences=np.concatenate([each.confidences for each in several if each.confidences is not None]),
    )
