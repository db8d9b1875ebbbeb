"""Videos that tests read."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write(
    file: Path,
    frames: Sequence[np.ndarray],
    *,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    rotation: int = 0,
    aspect: Fraction = Fraction(1),
    tag: int | None = None,
    colours: str = "ITU601",
) -> None:
    """Write RGB frames as H.264 of almost no loss.

    Args:
        file: file to write.
        frames: each ``(H, W, 3)`` uint8.
        times: when each is shown, in units of ``time_base``; 0, 1, 2, ... by default.
        time_base: unit of ``times``.
        rotation: degrees by which players turn the frames counterclockwise.
        aspect: width of a pixel divided by its height.
        tag: FFmpeg's code of the colour space that the file states, or None to state none.
        colours: colour space that the frames are converted to.
    """
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "1", "preset": "ultrafast", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv444p"
        stream.codec_context.time_base, stream.codec_context.sample_aspect_ratio = time_base, aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if tag is not None:
            stream.codec_context.colorspace = tag
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv444p", dst_colorspace=colours)
            frame.pts, frame.time_base = (number if times is None else times[number]), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read(file: Path) -> tuple[list[np.ndarray], list[float], av.VideoFrame]:
    """Return the RGB frames of a video, their times in seconds, and the first frame with its tags."""
    with av.open(str(file)) as container:
        found = list(container.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in found], [float(frame.time) for frame in found], found[0]


def numbered(count: int, height: int = 24, width: int = 32) -> list[np.ndarray]:
    """Frames of one grey each, 8 apart, with a white corner at the top left."""
    frames = [np.full((height, width, 3), 8 * number, np.uint8) for number in range(count)]
    for frame in frames:
        frame[: height // 2, : width // 2] = 255
    return frames
