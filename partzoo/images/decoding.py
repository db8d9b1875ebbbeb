"""Decode encoded bytes, PIL images and arrays to upright ``(H, W, 3)`` uint8 images.

EXIF orientation is applied. Transparent images are blended with white, so that colours stored under transparent pixels
never appear. 16-bit values are scaled to 8 bits (:mod:`partzoo.images.depth`), the first frame of an animation is
taken, and colour profiles are ignored. Sizes are checked in the header, before anything is decoded.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import logging
import os
import threading
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from partzoo import limits
from partzoo.errors import ImageError, ShapeError, TooLargeError, cause_of, restated
from partzoo.files import expand_user, reading, stand_in
from partzoo.images import depth
from partzoo.limits import MAX_PIXELS

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_TILE = 2**22  # pixels; tiles of real files are at most 2048 x 2048


def read_stream(stream: BinaryIO, name: str, max_bytes: int) -> bytes:
    """Read a binary stream to its end.

    Raises:
        ImageError: the stream is in text mode or longer than ``max_bytes``.
    """
    data = bytearray()
    with restated(name, lambda error: ImageError(f"{name} cannot be read ({cause_of(error)}).")):
        while chunk := stream.read(2**18):  # in chunks, because a file's read(n) allocates n bytes at once
            if not isinstance(chunk, bytes):
                raise ImageError(f"{name} is open in text mode: open it with mode 'rb'.")
            data += chunk
            if len(data) > max_bytes:
                raise _too_many_bytes(name, max_bytes)
    return bytes(data)


def read_file(source: str | os.PathLike, max_bytes: int) -> bytes:
    """Read a file.

    Raises:
        ImageError: the file is missing, unreadable or longer than ``max_bytes``.
    """
    path = expand_user(source)
    with reading(path, ImageError, "cannot be read", "check the path"):
        if os.path.isdir(path):
            raise ImageError(f"{str(path)!r} is a folder; one image is needed here.")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > max_bytes:
                raise _too_many_bytes(str(path), max_bytes)
            return read_stream(file, str(path), max_bytes)


def pixels_of_bytes(data: bytes, name: str, max_pixels: int) -> np.ndarray:
    """Decode an encoded image to ``(H, W, 3)`` uint8.

    Raises:
        ImageError: the image is empty, damaged, too large, or in an unknown format.
    """
    if not data:
        raise ImageError(f"{name} is empty (0 bytes).")
    if _is_heic(data):
        with contextlib.suppress(ImportError):
            importlib.import_module("pillow_heif").register_heif_opener()
    allowed = limits.formats()
    try:
        with pillow_limit(max_pixels):
            image = Image.open(io.BytesIO(data), formats=readable_formats())
    except UnidentifiedImageError:
        if (black_zero := depth.with_black_zero(data)) is not None:
            return 255 - pixels_of_bytes(black_zero, name, max_pixels)
        if b"<svg" not in data[:1024] and (reason := stand_in(data)):
            raise ImageError(f"{name} {reason}.") from None
        if allowed:
            fix = f"check the file; of all formats, PARTZOO_FORMATS allows only {', '.join(sorted(allowed))}"
        elif _is_heic(data):
            fix = "it is HEIC: convert it to JPEG, or pip install pillow-heif"
        else:
            fix = "check the file, or convert it to PNG"
        raise ImageError(f"{name} is not an image that Pillow can read: {fix}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLargeError(f"{name} has more than {max_pixels:,} pixels, the limit", "max_pixels") from None
    except Exception as error:  # damaged or hostile bytes make decoders raise errors of any type
        raise _damaged(name, error) from error
    with image:
        return pixels_of_image(image, name, max_pixels)


def readable_formats() -> list[str]:
    """Return Pillow's names of the formats that may be read: all except EPS, or those of PARTZOO_FORMATS."""
    Image.init()
    silence_decoders()
    allowed = limits.formats()
    return [each for each in Image.ID if each != "EPS" and (not allowed or each.lower() in allowed)]


@cache
def silence_decoders() -> None:
    """Keep Pillow's decoders from writing to stderr what they then raise as errors.

    For good and for the whole process, since a handler that came and went could not be used by several threads.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(OSError, AttributeError):  # not where libtiff is part of Pillow's library, as on Windows
        library = ctypes.CDLL(Image.core.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


def pixels_of_image(image: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    """Convert a PIL image to ``(H, W, 3)`` uint8, upright.

    Raises:
        ImageError: the image is damaged, empty or too large.
    """
    silence_decoders()
    with restated(name, partial(_damaged, name)), pillow_limit(max_pixels):  # decoding starts only here
        return _upright(image, name, max_pixels)


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(f"{name} is damaged or truncated ({cause_of(error)}).")


def _upright(image: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    width, height = image.size
    if width * height > max_pixels:
        raise TooLargeError(f"{name} is {height} x {width}: more than {max_pixels:,} pixels, the limit", "max_pixels")
    if not width or not height:
        raise ImageError(f"{name} has no pixels: it is {height} x {width}.")
    _check_tiles(image, name)
    bits, inverted, opaque = depth.known_bits(image), depth.is_white_zero(image), depth.lacks_alpha(image)
    colours = depth.colours_of_16_bits(image)
    if colours is not None:
        return pixels_of_array(colours, name)
    if opaque:
        depth.leave_fourth_band(image)
    image.load()
    image = depth.upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # convert() would clip their values at 255
        values = np.asarray(image)
        if image.mode == "I":  # Pillow decodes some 16-bit files to 32-bit integers
            if values.min() < 0 or values.max() > 65535:
                raise ImageError(f"{name} holds {values.min()}..{values.max()}: convert it to 8 or 16 bits.")
            values = values.astype(np.uint16)
        pixels = pixels_of_array(values, name, bits)
        return 255 - pixels if inverted else pixels
    if opaque:
        return np.array(image.convert("RGB"))
    if image.mode == "La":  # grey that is multiplied by alpha, which Pillow converts to LA alone
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _check_tiles(image: Image.Image, name: str) -> None:
    """Refuse a TIFF that states tiles much larger than itself: libtiff would allocate a whole one."""
    if isinstance(image, TiffImageFile):
        width, height = (image.tag_v2.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
        if width * height > max(image.width * image.height, LARGEST_TILE):
            raise ImageError(f"{name} is damaged: it states tiles of {height} x {width} pixels.")


def exif_orientation(source: Path | bytes) -> int:
    """Return the EXIF orientation of an encoded image, 1..8; 1 (upright) if it states none or its EXIF is damaged."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with contextlib.suppress(Exception), Image.open(file) as image:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def array_of_tensor(tensor: Tensor, name: str) -> np.ndarray:
    """Convert a tensor ``(H, W)`` or ``(C, H, W)`` to an array ``(H, W)`` or ``(H, W, C)``.

    Raises:
        ShapeError: the tensor has a different shape.
        ImageError: the tensor is sparse or on the meta device.
    """
    import torch

    if tensor.layout is not torch.strided or tensor.is_meta:
        raise ImageError(f"{name} is a tensor that is sparse or without values: pass a dense one.")
    if tensor.ndim == 3:
        if tensor.shape[0] not in (1, 3, 4):
            raise ShapeError(
                f"{name} is a tensor {tuple(tensor.shape)}: it must be (H, W), or (C, H, W) with C 1, 3 or 4."
            )
        tensor = tensor.movedim(0, 2)
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def pixels_of_array(array: np.ndarray, name: str, bits: int | None = None) -> np.ndarray:
    """Convert an array ``(H, W)`` or ``(H, W, C)`` to ``(H, W, 3)`` uint8; the result is always a copy.

    Args:
        array: uint8, uint16, bool, or float in 0..1.
        name: name of the image in messages.
        bits: depth of the data in uint16, or None if unknown.

    Raises:
        ShapeError: the array has a different shape.
        ImageError: the dtype or the values are not valid for an image.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ShapeError(f"{name} is an array {array.shape}: it must be (H, W), or (H, W, C) with C 1, 3 or 4.")
    if not array.size:
        raise ImageError(f"{name} has no pixels: it is an array {array.shape}.")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageError(f"{name} holds NaN or infinite values: an image needs finite numbers.")
        if low < -1e-3 or high > 1 + 1e-3:
            raise ImageError(f"{name} is float in {low:.3g}..{high:.3g}: scale it to 0..1, or pass uint8.")
        array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:
        # Alpha has a separate range: it is often full beside colours of 12 bits.
        planes = [array] if array.ndim == 2 or array.shape[2] < 4 else [array[..., :3], array[..., 3]]
        array = np.dstack([depth.to_8_bits(plane, bits) for plane in planes])
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ImageError(f"{name} is {array.dtype}: pass uint8 (0..255), uint16 (0..65535) or float (0..1).")
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.shape[2] == 4:
        return pixels_of_image(Image.fromarray(np.ascontiguousarray(array), "RGBA"), name, array.size)
    return array.copy()


def _is_heic(data: bytes) -> bool:
    return data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1")


def _too_many_bytes(name: str, max_bytes: int) -> ImageError:
    return TooLargeError(f"{name} has more than {max_bytes:,} bytes, the limit", "max_bytes")


_limit_lock = threading.Lock()
_limits: list[int] = []  # limits of the images that are being decoded
_pillows_own: int | None = None


@contextlib.contextmanager
def pillow_limit(max_pixels: int) -> Iterator[None]:
    """Raise Pillow's global limit to ours, if ours is higher, for as long as any thread decodes an image.

    Pillow would otherwise warn from 89 million pixels on, while reading the header as well as while decoding.
    """
    global _pillows_own
    with _limit_lock:
        if not _limits:
            _pillows_own = Image.MAX_IMAGE_PIXELS
        _limits.append(max(max_pixels, MAX_PIXELS))
        Image.MAX_IMAGE_PIXELS = max(_limits)
    try:
        yield
    finally:
        with _limit_lock:
            _limits.remove(max(max_pixels, MAX_PIXELS))
            Image.MAX_IMAGE_PIXELS = max(_limits) if _limits else _pillows_own
