"""Write the parts of a video's frames as a video: an overlay, or the part numbers."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from partzoo.errors import PartzooError, UsageError, require
from partzoo.files import path_aside
from partzoo.parts.parts import Parts

ENDINGS = (".mp4", ".mkv")  # an overlay; part numbers
BT709, LIMITED = 1, 1  # FFmpeg's codes of the colour space and of its range


def write_video(
    path: Path,
    several: Iterable[Parts],
    times: Iterable[int],
    *,
    time_base: Fraction,
    rate: Fraction,
    aspect: Fraction = Fraction(1),
    scale: int = 1,
) -> None:
    """Write one frame for each ``Parts``, atomically, holding one of them in memory at a time.

    Args:
        path: ``.mp4`` writes overlays as H.264, padded to even sizes with their last row and column; ``.mkv`` writes
            the part numbers without loss as grey values (FFV1), of 16 bits above 255 parts.
        several: parts of each frame, all of one size; overlays need their images.
        times: when each frame is shown, in units of ``time_base`` seconds, strictly ascending.
        time_base: unit of ``times``.
        rate: average number of frames in a second.
        aspect: width of a pixel divided by its height.
        scale: factor of enlargement of overlays.

    Raises:
        UsageError: the suffix is unknown.
        PartzooError: the file cannot be written.
        MissingExtraError: PyAV is not installed.
    """
    av = require("av", "video")
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{str(path)!r} must end in .mp4 (overlays) or .mkv (part numbers).")
    overlays = path.suffix.lower() == ".mp4"
    frames = (
        _padded(np.asarray(each.overlay(scale=scale, numbers=False))) if overlays else each.labels for each in several
    )
    try:
        with path_aside(path) as aside, av.open(str(aside), "w") as container:
            stream = None
            for pixels, time in zip(frames, times, strict=True):
                stream = stream or _stream(container, pixels, overlays, time_base, rate, aspect)
                form = "rgb24" if overlays else stream.pix_fmt
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)
                if overlays:  # the encoder would convert by BT.601, whatever the tag says
                    frame = frame.reformat(format=stream.pix_fmt, dst_colorspace="ITU709")
                frame.pts, frame.time_base = time, time_base
                container.mux(stream.encode(frame))
            if stream is not None:
                container.mux(stream.encode())
    except (OSError, av.FFmpegError) as error:
        raise PartzooError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error


def smoothed(frames: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Give each pixel the label that most of ``count`` neighbouring frames have there; ties keep the frame's label.

    Args:
        frames: labels ``(H, W)`` of each frame; ``count`` of them are held at a time.
        count: odd number of frames, with the frame itself in the middle; at both ends there are fewer. 1 changes
            nothing.

    Yields:
        Labels ``(H, W)`` of each frame.

    Raises:
        UsageError: count is even, or below 1.
    """
    if count < 1 or count % 2 == 0:
        raise UsageError(f"smooth={count} must be an odd number of frames, such as 3.")
    none = [None] * (count // 2)
    near: deque[np.ndarray | None] = deque([None] * count, maxlen=count)
    for number, frame in enumerate(itertools.chain(frames, none)):
        near.append(frame)
        own = near[count // 2]
        if number >= count // 2 and own is not None:
            yield _majority([each for each in near if each is not None], own)


def _majority(near: Sequence[np.ndarray], own: np.ndarray) -> np.ndarray:
    winner, most = own, sum(each == own for each in near)
    for label in np.unique(near):
        votes = sum(each == label for each in near)
        winner, most = np.where(votes > most, label, winner), np.maximum(votes, most)
    return winner.astype(own.dtype)


def _stream(
    container: Any, pixels: np.ndarray, overlays: bool, time_base: Fraction, rate: Fraction, aspect: Fraction
) -> Any:
    """Add the stream for frames like the first one."""
    stream = container.add_stream("libx264" if overlays else "ffv1", rate=rate)
    stream.height, stream.width = pixels.shape[:2]
    stream.pix_fmt = "yuv420p" if overlays else "gray" if pixels.dtype == np.uint8 else "gray16le"
    context = stream.codec_context
    context.time_base = time_base
    context.sample_aspect_ratio = aspect
    if overlays:  # untagged colours look different in every player
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
    return stream


def _padded(image: np.ndarray) -> np.ndarray:
    """Repeat the last row and column where a side is odd, which H.264 refuses."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
