"""Measure how much the labels of a video flicker, on a clip whose motion is known exactly.

The clip is a window that moves over a photograph by whole pixels, with fresh noise of a camera in every frame, encoded
as H.264. The vocabulary is fitted on sampled frames. Where two neighbouring frames show the same pixel of the
photograph, its label should be the same: *flicker* is the share of the object's pixels whose label differs. The object
is what has a part in either frame.

    python experiments/flicker.py examples/images/cat.jpg examples/images/astronaut.jpg
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import partzoo
from partzoo.errors import require
from partzoo.parts.video import smoothed

FRAMES, RATE = 40, 25
WINDOW = 0.75  # sides of the window, as a share of the photograph's
NOISE = 3.0  # standard deviation of the noise, of 255
STEPS = (0, 1, 2)  # pixels by which the window moves from frame to frame
PARTS = 6
VOTES = (1, 3, 5)  # frames that vote on a pixel's label; 1 is no smoothing


def positions(step: int, room: tuple[int, int], count: int = FRAMES) -> list[tuple[int, int]]:
    """Return the window's (y, x) in each frame: it moves diagonally, and turns back at the photograph's edges."""

    def along(length: int, number: int) -> int:
        place = number * step % max(2 * length, 1)
        return min(place, 2 * length - place)

    return [(along(room[0], i), along(room[1], i)) for i in range(count)]


def flicker(before: np.ndarray, after: np.ndarray, motion: tuple[int, int]) -> float:
    """Return the share of the pixels that two frames both show, and that have a part in either, whose label differs.

    Args:
        before: labels ``(H, W)`` of a frame.
        after: labels ``(H, W)`` of the next frame.
        motion: how far the window has moved, (y, x) in pixels: ``after[y, x]`` shows what ``before[y + dy, x + dx]``
            showed.
    """
    (height, width), (dy, dx) = before.shape, motion
    rows, columns = (slice(max(d, 0), size + min(d, 0)) for d, size in ((dy, height), (dx, width)))
    moved_rows, moved_columns = (slice(max(-d, 0), size + min(-d, 0)) for d, size in ((dy, height), (dx, width)))
    ours, theirs = before[rows, columns], after[moved_rows, moved_columns]
    return float(np.sum(ours != theirs) / max(np.sum((ours > 0) | (theirs > 0)), 1))


def write_clip(photograph: np.ndarray, places: Sequence[tuple[int, int]], file: Path) -> None:
    """Write the moving window as an H.264 video, whose sides are even."""
    av = require("av", "video")
    height, width = (int(side * WINDOW) // 2 * 2 for side in photograph.shape[:2])
    rng = np.random.default_rng(0)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for y, x in places:
            pixels = photograph[y : y + height, x : x + width] + rng.normal(0, NOISE, (height, width, 3))
            frame = av.VideoFrame.from_ndarray(pixels.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def measured(photograph: Path) -> list[tuple[str, int, int, float, float]]:
    """Return rows: photograph, step, votes, mean flicker in per cent, and how much of the object voting changes."""
    pixels = np.asarray(Image.open(photograph).convert("RGB"))
    rows = []
    for step in STEPS:
        room = tuple(side - int(side * WINDOW) // 2 * 2 for side in pixels.shape[:2])
        places = positions(step, (room[0], room[1]))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "clip.mp4")
            write_clip(pixels, places, file)
            labels = [parts.labels for parts in partzoo.discover_parts(str(file), PARTS)]
        motions = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(places)]
        for count in VOTES:
            smooth = list(smoothed(labels, count))
            pairs = zip(smooth, smooth[1:], motions, strict=False)
            changed = np.mean([flicker(a, b, (0, 0)) for a, b in zip(smooth, labels, strict=True)])
            rows.append((photograph.name, step, count, 100 * np.mean([flicker(*p) for p in pairs]), 100 * changed))
    return rows


def main(photographs: Sequence[str]) -> None:
    print(f"{'photograph':16} {'pixels/frame':>12} {'votes':>5} {'flicker, %':>10} {'changed, %':>10}")
    for name in photographs:
        for row in measured(Path(name)):
            print("{:16} {:12d} {:5d} {:10.2f} {:10.2f}".format(*row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
