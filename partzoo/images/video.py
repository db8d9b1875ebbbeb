"""Decode the frames of a video, one at a time."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import warnings
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from partzoo.errors import ImageError, TooLargeError, counted, require
from partzoo.files import expand_user, reading
from partzoo.limits import MAX_PIXELS

# Of FFmpeg's formats, those of files: a playlist with the suffix of a video could name any other file or address.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
UNSPECIFIED, TALLEST_601 = 2, 576  # FFmpeg's code of a colour space that is not stated; lines of standard definition


@functools.cache
def _silence(av: Any) -> None:
    """Turn FFmpeg's messages off, once, as PyAV has them by default: importing torchvision 0.21 turns them on."""
    av.logging.set_level(None)


class Video:
    """The frames of a video, upright, in the order in which they are shown.

    Frames are decoded one after another: to read one before the last one decodes the video from its beginning.

    Args:
        path: path of the video.
        max_pixels: largest number of pixels of a frame.

    Attributes:
        path: path of the video.
        times: when each frame is shown, in units of ``time_base`` seconds, strictly ascending from 0.
        time_base: unit of ``times``.
        rate: average number of frames in a second.
        aspect: width of a pixel, once upright, divided by its height.

    Raises:
        ImageError: the file is missing, is not a video, or its frames are too large.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> None:
        self._av = require("av", "video")
        _silence(self._av)
        self.path = expand_user(path)
        self._lock, self._position = threading.Lock(), 0
        self._frames: Iterator[Any] = iter(())
        self._max_pixels = max_pixels
        self.times = self._scan()

    def __len__(self) -> int:
        return len(self.times)

    def frame(self, index: int) -> np.ndarray:
        """Return a frame as ``(H, W, 3)`` uint8 RGB, upright.

        Raises:
            ImageError: the file has changed, so that the frame can no longer be decoded.
        """
        with self._lock, self._reading(), contextlib.suppress(self._av.FFmpegError):
            if index < self._position or not self._position:
                self._frames, self._position = self._decoded(), 0
            for frame in self._frames:
                self._position += 1
                if self._position > index:
                    return self._pixels(frame)
        raise ImageError(f"Frame {index} of {str(self.path)!r} can no longer be decoded: has the file changed?")

    def _scan(self) -> list[int]:
        """Decode the video once: containers state neither the number of frames nor their times reliably."""
        times: list[int] = []
        start = 0
        with self._reading(), self._opened() as (container, stream):
            try:
                self._size = (stream.codec_context.height, stream.codec_context.width)
                self.time_base = Fraction(stream.time_base)
                self.rate = Fraction(stream.average_rate or 25)
                self.aspect = Fraction(stream.codec_context.sample_aspect_ratio or 1)
                for frame in container.decode(stream):
                    if not times:
                        start = frame.pts or 0
                        self.aspect = 1 / self.aspect if frame.rotation % 180 else self.aspect
                    time = len(times) if frame.pts is None else frame.pts - start
                    times.append(max(time, times[-1] + 1) if times else 0)
            except self._av.FFmpegError as error:
                if not times:
                    raise
                warnings.warn(
                    f"{str(self.path)!r} is damaged after {counted(len(times), 'frame')} ({error.strerror}): "
                    "the rest is left out.",
                    stacklevel=2,
                )
        if not times:
            raise ImageError(f"{str(self.path)!r} holds no frames: pass a video.")
        return times

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        return reading(self.path, ImageError, "cannot be decoded as a video", "convert it")

    def _decoded(self) -> Iterator[Any]:
        with self._opened() as (container, stream):
            yield from container.decode(stream)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the video and select its first stream of images."""
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        # Titles may be in any encoding, and none is used.
        with self._av.open(str(self.path.absolute()), options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                raise ImageError(f"{str(self.path)!r} has no video stream: pass a video.")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ImageError(f"{str(self.path)!r} is in a codec that FFmpeg does not know: convert it.")
            pixels = stream.codec_context.width * stream.codec_context.height
            if pixels > self._max_pixels:
                raise TooLargeError(f"{str(self.path)!r} has frames of {pixels:,} pixels", "max_pixels")
            stream.codec_context.options = {"max_pixels": str(self._max_pixels)}  # later frames may be larger
            stream.thread_type = "AUTO"
            yield container, stream

    def _pixels(self, frame: Any) -> np.ndarray:
        """Return a frame as ``(H, W, 3)`` RGB, upright; frames of another size than the first ones are scaled."""
        # As players do: FFmpeg would take untagged colours for BT.601 at any size.
        untagged = frame.colorspace == UNSPECIFIED and frame.height > TALLEST_601
        height, width = self._size
        colours = {"src_colorspace": "ITU709"} if untagged else {}
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height, **colours)
        return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
