"""Anything that holds a picture -> 8-bit RGB pixels, and pixels -> what a model takes.

Every picture becomes ``(H, W, 3)`` uint8, upright: EXIF orientation is applied, transparency is laid on white (so
the colours hidden under transparent pixels never show), 16-bit grey is scaled, an animation gives its first frame.
Colour profiles are ignored. Sizes are checked in the header, before anything is decoded.
"""

from __future__ import annotations

import glob
import http.client
import io
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from partzoo.errors import ImageError, ShapeError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from partzoo.encoders.base import Preprocess

MAX_PIXELS = 89_478_485  # where Pillow, too, begins to warn of decompression bombs
MAX_BYTES = 256 * 2**20
URL_SECONDS = 60
SUFFIXES = frozenset(
    ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split()
)


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture: ``pixels`` ``(H, W, 3)`` uint8, and ``name``, the path or address it came from."""

    pixels: np.ndarray
    name: str = "picture"

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


class Pictures(Sequence):
    """Pictures opened when they are asked for, so that any number of them takes the memory of one."""

    def __init__(self, sources: Sequence, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> None:
        self.sources = sources
        self.limits = {"max_pixels": max_pixels, "max_bytes": max_bytes}

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Pictures([self.sources[i] for i in range(*index.indices(len(self)))], **self.limits)
        index = range(len(self))[index]
        return open_picture(self.sources[index], name=self.name(index), **self.limits)

    def name(self, index: int) -> str:
        """What picture ``index`` is called, without opening it: its path, its address or ``picture 3``."""
        source = self.sources[index]
        return _name(source) or (f"picture {index + 1}" if len(self) > 1 else "picture")


def open_picture(
    source: Any, *, name: str | None = None, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Picture:
    """Read one picture from whatever holds it.

    Args:
        source: path; ``http(s)`` URL; PIL image; array ``(H, W)`` or ``(H, W, C)``; tensor ``(H, W)`` or
            ``(C, H, W)``; encoded bytes; binary file object; ``Picture``. C is 1, 3 or 4 (alpha last). Arrays and
            tensors are uint8, uint16 or floats in 0..1.
        name: what to call the picture in messages; its path or address by default.
        max_pixels: the most pixels to decode.
        max_bytes: the most bytes to read or download.

    Returns:
        The picture, upright, in its own size; it shares no memory with ``source``.

    Raises:
        ImageError: it is missing, damaged, too large or no picture.
    """
    if isinstance(source, Picture):
        return source
    name = name or _name(source) or "picture"
    if isinstance(source, Image.Image):
        return Picture(_pixels(source, name, max_pixels), name)
    if _is_tensor(source):
        return Picture(_from_array(_tensor_to_array(source, name), name), name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        if len(data) > max_bytes:
            raise _too_many_bytes(name, max_bytes)
    elif isinstance(source, (str, os.PathLike)):
        data = _download(str(source), max_bytes) if _is_url(source) else _read_file(source, max_bytes)
    elif hasattr(source, "read"):
        data = source.read(max_bytes + 1)
        if not isinstance(data, bytes):
            raise ImageError(f"{name} is open as text: open it with mode 'rb'.")
        if len(data) > max_bytes:
            raise _too_many_bytes(name, max_bytes)
    elif hasattr(source, "__array__"):
        return Picture(_from_array(np.asarray(source), name), name)
    else:
        raise ImageError(
            f"A {type(source).__name__} is no picture: pass a path, URL, PIL image, array, tensor, bytes or file object."
        )
    return Picture(_decode(data, name, max_pixels), name)


def open_pictures(
    source: Any, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> tuple[Pictures, bool]:
    """Prepare one picture or many; each is opened when it is asked for.

    Args:
        source: what ``open_picture`` takes, or many of it: a sequence or iterable (folders and globs in it are
            expanded), a folder (all pictures in it and below, sorted by path, hidden files left out), a glob such as
            ``"birds/**/*.jpg"``, an array ``(B, H, W, C)``, a tensor ``(B, C, H, W)``. Folders and globs give the
            files that have a picture's ending.

    Returns:
        The pictures, and whether ``source`` was a single one.

    Raises:
        ImageError: a folder or glob holds no picture, or the sequence is empty.
    """
    limits = {"max_pixels": max_pixels, "max_bytes": max_bytes}
    if isinstance(source, Pictures):
        return source, False
    if isinstance(source, (str, os.PathLike)):
        files = _expand(source)
        return (Pictures([source], **limits), True) if files is None else (Pictures(files, **limits), False)
    if _is_tensor(source) or isinstance(source, np.ndarray):
        single = source.ndim != 4
        return Pictures([source] if single else source, **limits), single
    holds_one = isinstance(source, (Picture, Image.Image, bytes, bytearray, memoryview)) or hasattr(source, "read")
    if not holds_one and isinstance(source, Iterable) and not hasattr(source, "__array__"):
        sources = []
        for item in source:
            files = _expand(item) if isinstance(item, (str, os.PathLike)) else None
            sources.extend([item] if files is None else files)
        if not sources:
            raise ImageError("The sequence of pictures is empty: pass at least one.")
        return Pictures(sources, **limits), False
    return Pictures([source], **limits), True


def working_size(size: tuple[int, int], target: int, multiple: int) -> tuple[int, int]:
    """Size at which to compute: the longer side near ``target``, the aspect as near as multiples allow.

    Args:
        size: ``(height, width)`` of the picture.
        target: wished length of the longer side, in pixels.
        multiple: both sides come out as multiples of it, at least one.

    Returns:
        ``(height, width)``.

    Raises:
        UsageError: a number is below 1.
    """
    if min(*size, target, multiple) < 1:
        raise UsageError(f"size={size}, target={target} and multiple={multiple} must all be at least 1.")

    def rounded(length: float) -> int:
        return max(int(length / multiple + 0.5), 1) * multiple

    scale = rounded(target) / max(size)
    return rounded(size[0] * scale), rounded(size[1] * scale)


def to_tensor(picture: Picture | np.ndarray, size: tuple[int, int], preprocess: Preprocess) -> Tensor:
    """Resize (antialiased) and normalize a picture for a model.

    Args:
        picture: a ``Picture`` or ``(H, W, 3)`` uint8 pixels.
        size: ``(h, w)`` to resize to; ``working_size`` keeps the aspect.
        preprocess: the model's ``mean`` and ``std`` (of values in 0..1) and ``interpolation`` (a name of PIL's).

    Returns:
        ``(3, h, w)`` float32.
    """
    import torch

    pixels = picture.pixels if isinstance(picture, Picture) else picture
    try:
        resample = Image.Resampling[preprocess.interpolation.upper()]
    except KeyError:
        choices = ", ".join(mode.name.lower() for mode in Image.Resampling)
        raise UsageError(f"Unknown interpolation {preprocess.interpolation!r}. Choose one of {choices}.") from None
    if pixels.shape[:2] != tuple(size):
        pixels = np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), resample))
    scale = 1 / (255 * np.asarray(preprocess.std, np.float32))
    shift = np.asarray(preprocess.mean, np.float32) / np.asarray(preprocess.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray((pixels * scale - shift).transpose(2, 0, 1)))


def _name(source: Any) -> str | None:
    """The path or address of a source, if it has one."""
    if isinstance(source, Picture):
        return source.name
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    name = getattr(source, "filename", None) if isinstance(source, Image.Image) else getattr(source, "name", None)
    return name if isinstance(name, str) and name else None


def _is_url(source: str | os.PathLike) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _is_tensor(source: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _expand(source: str | os.PathLike) -> list[Path] | None:
    """The pictures in a folder or glob, sorted; None for a single file or URL."""
    if _is_url(source):
        return None
    path = Path(source).expanduser()
    if path.is_dir():
        found = (Path(folder, file) for folder, _, files in os.walk(path) for file in files)
        found = [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    elif glob.has_magic(str(path)) and not path.exists():
        found = [Path(file) for file in glob.glob(str(path), recursive=True)]
    else:
        return None
    pictures = sorted(file for file in found if file.suffix.lower() in SUFFIXES and file.is_file())
    if not pictures:
        raise ImageError(f"No pictures in {str(path)!r}: looked for files ending in {' '.join(sorted(SUFFIXES))}.")
    return pictures


def _read_file(source: str | os.PathLike, max_bytes: int) -> bytes:
    path = Path(source).expanduser()
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > max_bytes:
                raise _too_many_bytes(str(path), max_bytes)
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise ImageError(f"No such file: {str(path)!r}. Check the path.") from None
    except IsADirectoryError:
        raise ImageError(f"{str(path)!r} is a folder; one picture is needed here.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"Cannot read {str(path)!r}: {reason}.") from None
    if len(data) > max_bytes:
        raise _too_many_bytes(str(path), max_bytes)
    return data


def _download(url: str, max_bytes: int) -> bytes:
    # Without urllib's file, ftp and data handlers a redirect cannot leave http.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler, urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.UnknownHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    deadline = time.monotonic() + URL_SECONDS
    data = bytearray()
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "partzoo", "Accept": "image/*,*/*;q=0.5"})
        with opener.open(request, timeout=URL_SECONDS / 4) as response:
            if int(response.headers.get("Content-Length") or 0) > max_bytes:
                raise _too_many_bytes(url, max_bytes)
            while chunk := response.read1(2**16):
                data += chunk
                if len(data) > max_bytes:
                    raise _too_many_bytes(url, max_bytes)
                if time.monotonic() > deadline:
                    raise ImageError(f"{url} takes longer than {URL_SECONDS} s: download it, then pass the file.")
    except urllib.error.HTTPError as error:
        raise ImageError(f"{url} answered {error.code} {error.reason}. Check the address.") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ImageError(f"Cannot download {url}: {reason}. Check the address and the network.") from None
    return bytes(data)


def _too_many_bytes(name: str, max_bytes: int) -> ImageError:
    return ImageError(f"{name} is larger than the limit of {max_bytes:,} bytes: make it smaller, or raise max_bytes.")


def _decode(data: bytes, name: str, max_pixels: int) -> np.ndarray:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes).")
    Image.init()
    formats = [each for each in Image.ID if each != "EPS"]  # Pillow hands EPS, a program, to Ghostscript
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
            raise ImageError(f"{name} is HEIC: convert it to JPEG, or register pillow-heif's opener first.") from None
        raise ImageError(f"{name} is no picture that Pillow can read: check it, or convert it to PNG.") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name} is more than twice Pillow's limit of {Image.MAX_IMAGE_PIXELS:,} pixels.") from None
    except Exception as error:  # decoders meet hostile bytes with errors of any type
        raise ImageError(f"{name} is damaged ({error}).") from error
    with image:
        return _pixels(image, name, max_pixels)


def _pixels(image: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    """``(H, W, 3)`` uint8 of a PIL image, upright."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width:,} x {height:,} pixels, more than the limit of {max_pixels:,}: "
            "make it smaller, or raise max_pixels."
        )
    if not width or not height:
        raise ImageError(f"{name} has no pixels (size {height} x {width}).")
    try:
        image.load()
    except Exception as error:  # as above
        raise ImageError(f"{name} is damaged or cut short ({error}).") from error
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block does not make the pixels unreadable
        pass
    if image.mode == "I":  # Pillow gives it to 16-bit PGM and some 16-bit PNG
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{name} is 32-bit with values {values.min()}..{values.max()}: convert it to 8 or 16 bits.")
        return _from_array(values.astype(np.uint16), name)
    if image.mode == "F" or image.mode.startswith("I;16"):  # convert() would clip these
        return _from_array(np.asarray(image), name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _tensor_to_array(tensor: Tensor, name: str) -> np.ndarray:
    if tensor.ndim == 3:
        if tensor.shape[0] not in (1, 3, 4):
            raise ShapeError(f"{name}: a tensor is (C, H, W) with C 1, 3 or 4, or (H, W); this is {tuple(tensor.shape)}.")
        tensor = tensor.movedim(0, 2)
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    """``(H, W, 3)`` uint8 of ``(H, W)`` or ``(H, W, C)`` uint8, uint16 or float in 0..1; always a copy."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise ShapeError(
            f"{name}: an array is (H, W) or (H, W, C) with C 1, 3 or 4, and at least one pixel; this is {array.shape}."
        )
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageError(f"{name} holds NaN or infinite values: a picture needs finite numbers.")
        if low < -1e-3 or high > 1 + 1e-3:
            raise ImageError(f"{name} is float with values {low:.3g}..{high:.3g}: scale it to 0..1, or pass uint8.")
        array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ImageError(f"{name} is {array.dtype}: pass uint8 (0..255), uint16 (0..65535) or float (0..1).")
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.shape[2] == 4:
        return _pixels(Image.fromarray(np.ascontiguousarray(array), "RGBA"), name, array.size)
    return array.copy()
