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
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from partzoo import limits
from partzoo.errors import ImageError, ShapeError, TooLargeError, cause_of, restated
from partzoo.files import expand_user, reading, stand_in
from partzoo.images import depth, strips
from partzoo.limits import MAX_PIXELS

if TYPE_CHECKING:
    from torch import Tensor

COMMON = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # begin of JPEG and PNG files
LARGEST_TILE = 2**22  # pixels; tiles of real files are at most 2048 x 2048


# Called in the thread that decodes an image, just before, with the number of bytes of its pixels.
admit: ContextVar[Callable[[int], None] | None] = ContextVar("admit", default=None)


def copy_stream(stream: BinaryIO, name: str, max_bytes: int) -> BinaryIO:
    """Read a binary stream to its end into memory.

    Raises:
        ImageError: the stream is in text mode or longer than ``max_bytes``.
    """
    data = io.BytesIO()
    with restated(name, lambda error: ImageError(f"{name} cannot be read ({cause_of(error)}).")):
        while chunk := stream.read(2**18):  # in chunks, because a file's read(n) allocates n bytes at once
            if not isinstance(chunk, bytes):
                raise ImageError(f"{name} is open in text mode: open it with mode 'rb'.")
            data.write(chunk)
            if data.tell() > max_bytes:
                raise _too_many_bytes(name, max_bytes)
    data.seek(0)
    return data


def stream_of_bytes(data: bytes | bytearray | memoryview, name: str, max_bytes: int) -> BinaryIO:
    """Return a stream of encoded bytes.

    Raises:
        ImageError: there are more than ``max_bytes``.
    """
    if memoryview(data).nbytes > max_bytes:
        raise _too_many_bytes(name, max_bytes)
    return io.BytesIO(data)


def open_file(source: str | os.PathLike, max_bytes: int) -> BinaryIO:
    """Open a file.

    Raises:
        ImageError: the file is missing, unreadable or longer than ``max_bytes``.
    """
    path = expand_user(source)
    with reading(path, ImageError, "cannot be read", "check the path"):
        if os.path.isdir(path):
            raise ImageError(f"{str(path)!r} is a folder; one image is needed here.")
        file = path.open("rb")
    if os.fstat(file.fileno()).st_size > max_bytes:
        file.close()
        raise _too_many_bytes(str(path), max_bytes)
    return file


def pixels_of_stream(stream: BinaryIO, name: str, max_pixels: int) -> np.ndarray:
    """Decode an encoded image to ``(H, W, 3)`` uint8; the stream may be closed then.

    Raises:
        ImageError: the image is empty, damaged, too large, or in an unknown format.
    """
    try:
        begin = stream.read(1024)
    except OSError as error:
        raise ImageError(f"Cannot read {name!r}: {error.strerror or error}.") from None
    if not begin:
        raise ImageError(f"{name} is empty (0 bytes).")
    if _is_heic(begin):
        with contextlib.suppress(ImportError):
            importlib.import_module("pillow_heif").register_heif_opener()
    allowed = limits.formats()
    try:
        with pillow_limit(max_pixels):
            image = Image.open(stream, formats=readable_formats(begin))
    except UnidentifiedImageError:
        if begin[:4] in depth.TIFF:
            stream.seek(0)
            if (black_zero := depth.with_black_zero(stream.read())) is not None:
                pixels = pixels_of_stream(io.BytesIO(black_zero), name, max_pixels)
                return np.subtract(255, pixels, out=pixels)
        if b"<svg" not in begin and (reason := stand_in(begin)):
            raise ImageError(f"{name} {reason}.") from None
        if allowed:
            fix = f"check the file; of all formats, PARTZOO_FORMATS allows only {', '.join(sorted(allowed))}"
        elif _is_heic(begin):
            fix = "it is HEIC: convert it to JPEG, or pip install pillow-heif"
        else:
            fix = "check the file, or convert it to PNG"
        raise ImageError(f"{name} is not an image that Pillow can read: {fix}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLargeError(f"{name} has more than {max_pixels:,} pixels, the limit", "max_pixels") from None
    except Exception as error:  # damaged or hostile bytes make decoders raise errors of any type
        raise _damaged(name, error) from error
    with image:
        return pixels_of_image(image, name, max_pixels, stream.close)


def readable_formats(begin: bytes = b"") -> list[str]:
    """Return Pillow's names of the formats that may be read: all except EPS, or those of PARTZOO_FORMATS.

    ``begin`` is the begin of a file, or nothing if any format is looked for. Most files are JPEG or PNG, which Pillow
    can read before it has imported its other formats; that takes as long as importing partzoo.
    """
    if begin.startswith(COMMON):
        Image.preinit()
    else:
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


def pixels_of_image(
    image: Image.Image, name: str, max_pixels: int, decoded: Callable[[], None] | None = None
) -> np.ndarray:
    """Convert a PIL image to ``(H, W, 3)`` uint8, upright.

    Args:
        image: the image.
        name: name of the image in messages.
        max_pixels: largest number of pixels to decode.
        decoded: function that is called when the encoded image is no longer needed.

    Raises:
        ImageError: the image is damaged, empty or too large.
    """
    silence_decoders()
    with restated(name, partial(_damaged, name)), pillow_limit(max_pixels):  # decoding starts only here
        return _upright(image, name, max_pixels, decoded)


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(f"{name} is damaged or truncated ({cause_of(error)}).")


def _upright(image: Image.Image, name: str, max_pixels: int, decoded: Callable[[], None] | None) -> np.ndarray:
    width, height = image.size
    if width * height > max_pixels:
        raise TooLargeError(f"{name} is {height} x {width}: more than {max_pixels:,} pixels, the limit", "max_pixels")
    if not width or not height:
        raise ImageError(f"{name} has no pixels: it is {height} x {width}.")
    _check_tiles(image, name)
    _ask_for_room(height, width)
    bits, inverted, opaque = depth.known_bits(image), depth.is_white_zero(image), depth.lacks_alpha(image)
    colours = depth.colours_of_16_bits(image)
    if colours is None:
        if opaque:
            depth.leave_fourth_band(image)
        image.load()
    if decoded is not None:
        decoded()
    if colours is not None:
        return colours if colours.shape[2] == 3 else _converted(_strips_of_array(colours), colours.shape, name)
    size, orientation = (image.height, image.width), strips.orientation_of(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # convert() would clip their values at 255
        dtype = None
        if image.mode == "I":  # Pillow decodes some 16-bit files to 32-bit integers
            low, high = cast(tuple[float, float], image.getextrema())
            if low < 0 or high > 65535:
                raise ImageError(f"{name} holds {low}..{high}: convert it to 8 or 16 bits.")
            dtype = np.uint16
        pixels = _converted(lambda: _arrays_of(image, dtype), size, name, bits, orientation)
        return np.subtract(255, pixels, out=pixels) if inverted else pixels
    upright, stored = strips.empty(*size, 3, orientation)
    for rows, strip in strips.strips_of(image):
        stored[rows] = np.asarray(strip.convert("RGB") if opaque else _on_white(strip))
    return upright


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
        return strips.orientation_of(image)
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


def pixels_of_array(array: np.ndarray, name: str) -> np.ndarray:
    """Convert an array ``(H, W)`` or ``(H, W, C)`` to ``(H, W, 3)`` uint8; the result is always a copy.

    Args:
        array: uint8, uint16, bool, or float in 0..1.
        name: name of the image in messages.

    Raises:
        ShapeError: the array has a different shape.
        ImageError: the dtype or the values are not valid for an image.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ShapeError(f"{name} is an array {array.shape}: it must be (H, W), or (H, W, C) with C 1, 3 or 4.")
    if not array.size:
        raise ImageError(f"{name} has no pixels: it is an array {array.shape}.")
    _ask_for_room(*array.shape[:2])
    return _converted(_strips_of_array(array), array.shape, name)


Strips = Callable[[], Iterator[tuple[slice, np.ndarray]]]  # yields the rows of each strip, and its values


def _strips_of_array(array: np.ndarray) -> Strips:
    return lambda: ((rows, array[rows]) for rows in strips.rows_of(*array.shape[:2]))


def _arrays_of(image: Image.Image, dtype: type | None) -> Iterator[tuple[slice, np.ndarray]]:
    return ((rows, np.asarray(strip, dtype)) for rows, strip in strips.strips_of(image))


def _converted(
    values: Strips, size: tuple[int, ...], name: str, bits: int | None = None, orientation: int = 1
) -> np.ndarray:
    """Convert values strip by strip to ``(H, W, 3)`` uint8, upright.

    Args:
        values: the strips.
        size: height and width; further axes are ignored.
        name: name of the image in messages.
        bits: depth of values in uint16, or None if unknown.
        orientation: EXIF orientation.
    """
    to_8_bits = _to_8_bits(values, name, bits)
    upright, stored = strips.empty(size[0], size[1], 3, orientation)
    for rows, strip in values():
        found = to_8_bits(strip)
        if found.ndim == 2:
            found = found[..., None]
        elif found.shape[2] == 4:
            found = np.asarray(_on_white(Image.fromarray(np.ascontiguousarray(found), "RGBA")))
        stored[rows] = found
    return upright


def _to_8_bits(values: Strips, name: str, bits: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that converts a strip to uint8; its range is that of all strips."""
    dtype = next(values())[1].dtype
    if dtype.kind == "f":
        low = float(np.min([strip.min() for _, strip in values()]))
        high = float(np.max([strip.max() for _, strip in values()]))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageError(f"{name} holds NaN or infinite values: an image needs finite numbers.")
        if low < -1e-3 or high > 1 + 1e-3:
            raise ImageError(f"{name} is float in {low:.3g}..{high:.3g}: scale it to 0..1, or pass uint8.")
        return lambda strip: np.rint(np.clip(strip, 0, 1) * 255).astype(np.uint8)
    if dtype.kind == "u" and dtype.itemsize == 2:
        # Alpha has a separate range: it is often full beside colours of 12 bits.
        tops = np.max([[plane.max() for plane in _planes(strip)] for _, strip in values()], axis=0)
        depths = [bits or depth.bits_for(int(top)) for top in tops]
        return lambda strip: np.dstack(
            [depth.to_8_bits(plane, each) for plane, each in zip(_planes(strip), depths, strict=True)]
        )
    if dtype.kind == "b":
        return lambda strip: strip.astype(np.uint8) * 255
    if dtype != np.uint8:
        raise ImageError(f"{name} is {dtype}: pass uint8 (0..255), uint16 (0..65535) or float (0..1).")
    return lambda strip: strip


def _planes(array: np.ndarray) -> list[np.ndarray]:
    """Return the colours of an array, and its alpha if it has any."""
    return [array] if array.ndim == 2 or array.shape[2] < 4 else [array[..., :3], array[..., 3]]


def _on_white(image: Image.Image) -> Image.Image:
    """Convert an image of 8 bits to RGB, blended with white where it is transparent."""
    if image.mode == "La":  # grey that is multiplied by alpha, which Pillow converts to LA alone
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _ask_for_room(height: int, width: int) -> None:
    if (ask := admit.get()) is not None:
        ask(3 * height * width)


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
