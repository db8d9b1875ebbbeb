"""Read images from any source into :class:`OpenedImage`, upright and at their original size."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from partzoo.errors import ImageError
from partzoo.files import expand_user
from partzoo.images import decoding as decode
from partzoo.images.finding import files_below, files_matching, is_pattern
from partzoo.limits import MAX_BYTES, MAX_PIXELS

SUFFIXES = tuple(
    ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An upright RGB image in memory.

    Attributes:
        pixels: ``(H, W, 3)`` uint8, RGB.
        name: path or address of the source, or a name for messages.
        source: path or address of the source, or an empty string.
    """

    pixels: np.ndarray
    name: str = "image"
    source: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Size ``(height, width)`` in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


class OpenedImages(Sequence[OpenedImage]):
    """A sequence of images, each opened only when indexed, so any number of them takes the memory of one.

    Attributes:
        one_by_one: whether images must be read one after the other, in order.
    """

    one_by_one = False

    def __init__(self, sources: Sequence, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> None:
        self.sources = sources
        self.limits = {"max_pixels": max_pixels, "max_bytes": max_bytes}

    def __len__(self) -> int:
        return len(self.sources)

    @overload
    def __getitem__(self, index: int) -> OpenedImage: ...

    @overload
    def __getitem__(self, index: slice) -> OpenedImages: ...

    def __getitem__(self, index: int | slice) -> OpenedImage | OpenedImages:
        places = range(len(self))[index]
        if isinstance(places, range):
            return self._several(places)
        return self._open(places)

    def _several(self, places: Sequence[int]) -> OpenedImages:
        return OpenedImages([self.sources[i] for i in places], **self.limits)

    def _open(self, index: int) -> OpenedImage:
        return open_image(self.sources[index], name=self.name(index), **self.limits)

    def name(self, index: int) -> str:
        """Return an image's name without opening it: its path, its address, or for example ``image 3``."""
        source = self.sources[index]
        return _name(source) or (f"image {index + 1}" if len(self) > 1 else "image")

    def files(self) -> list[str]:
        """Return the names of the files that are read; those of other sources are names of no file."""
        return [self.name(index) for index in range(len(self))]


class VideoFrames(OpenedImages):
    """The frames of a video, each named as if the video were a folder: ``clip.mp4/000012``.

    Attributes:
        video: the video; see :class:`partzoo.images.video.Video` for its times and the errors.
    """

    one_by_one = True  # to read an earlier frame, the video is decoded from its beginning

    def __init__(self, path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> None:
        from partzoo.images.video import Video

        self.video = Video(path, max_pixels=max_pixels)
        super().__init__(range(len(self.video)), max_pixels=max_pixels)

    def _several(self, places: Sequence[int]) -> OpenedImages:
        return OpenedImages([self._open(i) for i in places], **self.limits)

    def _open(self, index: int) -> OpenedImage:
        return OpenedImage(self.video.frame(index), self.name(index), self.name(index))

    def name(self, index: int) -> str:
        return f"{self.video.path}/{self.sources[index]:06d}"

    def files(self) -> list[str]:
        return [str(self.video.path)]


def open_image(
    source: Any, *, name: str | None = None, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> OpenedImage:
    """Read one image from any source.

    Args:
        source: path; ``http(s)`` URL; PIL image; array ``(H, W)`` or ``(H, W, C)``; tensor ``(H, W)`` or
            ``(C, H, W)``; encoded bytes; binary file object; or an :class:`OpenedImage`, which is returned unchanged. C
            is 1, 3 or 4 (alpha last). Arrays and tensors are uint8, uint16, bool, or float in 0..1.
        name: name of the image in messages; its path or address by default.
        max_pixels: largest number of pixels to decode.
        max_bytes: largest number of bytes to read or download.

    Returns:
        The image, upright and at its original size; it shares no memory with other sources.

    Raises:
        ImageError: the source is missing, damaged, too large or not an image.
    """
    if isinstance(source, OpenedImage):
        return source
    known = _name(source) or ""
    name = name or known or "image"
    return OpenedImage(_pixels(source, name, max_pixels, max_bytes), name, known)


def _pixels(source: Any, name: str, max_pixels: int, max_bytes: int) -> np.ndarray:
    if isinstance(source, Image.Image):
        return decode.pixels_of_image(source, name, max_pixels)
    if _is_tensor(source):
        return decode.pixels_of_array(decode.array_of_tensor(source, name), name)
    if isinstance(source, (str, os.PathLike)) and not _is_url(source):
        stream = decode.open_file(source, max_bytes)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        stream = decode.stream_of_bytes(source, name, max_bytes)
    elif _is_url(source):
        from partzoo.addresses import download  # which takes as long to import as this module

        stream = io.BytesIO(download(source, max_bytes))
    elif hasattr(source, "read"):
        stream = decode.copy_stream(source, name, max_bytes)
    elif hasattr(source, "__array__"):
        return decode.pixels_of_array(np.asarray(source), name)
    else:
        raise ImageError(
            f"{name} is of type {type(source).__name__}: "
            "pass a path, URL, PIL image, array, tensor, bytes or file object."
        )
    with stream:
        return decode.pixels_of_stream(stream, name, max_pixels)


def open_images(source: Any, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> tuple[OpenedImages, bool]:
    """Prepare one image or many; each is opened only when indexed.

    Args:
        source: one image, in any form that :func:`open_image` accepts; or many: an iterable (its folders and globs are
            expanded); a folder, with all visible images below it; a glob such as ``"birds/**/*.jpg"``; a video, by its
            suffix (:data:`VIDEOS`), whose frames are the images; an array ``(B, H, W, C)``; or a tensor
            ``(B, C, H, W)``. Of folders and globs, files with the suffix of an image format are used, sorted by path,
            each once, however many links lead to it; ``~`` is the home folder.
        max_pixels: largest number of pixels to decode in one image.
        max_bytes: largest number of bytes to read or download for one image.

    Returns:
        The images, and whether ``source`` was a single one.

    Raises:
        ImageError: a folder or glob contains no images, or the iterable is empty.
        UsageError: a path is empty.
    """
    limits = {"max_pixels": max_pixels, "max_bytes": max_bytes}
    if isinstance(source, OpenedImages):
        return source, False
    if isinstance(source, (str, os.PathLike)):
        if is_video(source):
            return VideoFrames(source, max_pixels=max_pixels), False
        files = _expand(source)
        return (OpenedImages([source], **limits), True) if files is None else (OpenedImages(files, **limits), False)
    if _is_tensor(source) or isinstance(source, np.ndarray):
        single = source.ndim != 4
        return OpenedImages([source] if single else source, **limits), single
    holds_one = isinstance(source, (OpenedImage, Image.Image, bytes, bytearray, memoryview)) or hasattr(source, "read")
    if not holds_one and isinstance(source, Iterable) and not hasattr(source, "__array__"):
        sources: list[Any] = []
        for item in source:
            files = _expand(item) if isinstance(item, (str, os.PathLike)) else None
            sources.extend([item] if files is None else files)
        if not sources:
            raise ImageError("The sequence of images is empty: pass at least one.")
        return OpenedImages(sources, **limits), False
    return OpenedImages([source], **limits), True


def is_video(source: Any) -> bool:
    """Return whether a source is the path of a video, by its suffix; addresses are not: videos are not downloaded."""
    return isinstance(source, (str, os.PathLike)) and not _is_url(source) and _suffix(source) in VIDEOS


def _suffix(path: str | os.PathLike) -> str:
    return Path(os.fsdecode(path)).suffix.lower()


def _name(source: Any) -> str | None:
    """Return the path or address of a source, or None."""
    if isinstance(source, OpenedImage):
        return source.name
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    name = getattr(source, "filename", None) if isinstance(source, Image.Image) else getattr(source, "name", None)
    return name if isinstance(name, str) and name else None


def _is_url(source: Any) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _is_tensor(source: Any) -> bool:
    kind = getattr(sys.modules.get("torch"), "Tensor", None)  # None also while another thread imports torch
    return kind is not None and isinstance(source, kind)


def _expand(source: str | os.PathLike) -> list[Path] | None:
    """Return the sorted paths of the images in a folder or glob, or None for a single file or URL."""
    if _is_url(source):
        return None
    path = expand_user(source)
    if os.path.isdir(path):
        found = files_below(path)
    elif is_pattern(path):
        found = files_matching(path)
    else:
        return None
    images = [file for file in found if file.suffix.lower() in SUFFIXES]
    if not images:
        raise ImageError(f"No images in {str(path)!r}: looked for files ending in {' '.join(SUFFIXES)}.")
    return images
