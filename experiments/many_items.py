"""Measure whether commands over many images cost more per image the more images there are.

Each command runs over 10, 1,000 and 10,000 tiny images that all have the same name, ``frame.png``, in folders of their
own. The seconds of CPU time and the memory are those of the whole process, the least of three runs, or for the most
images of one; the time of the fewest is taken off as what every process costs. Less than a quarter of a millisecond an
image is not distinguished from none.

    python experiments/many_items.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rows import markdown

FEW, SOME, MANY = 10, 1_000, 10_000
SIDE = 16
NOISE = 0.25  # milliseconds an image: two starts of Python differ by as much as 1,000 images then take
MODEL = ("--model", "toy-vit", "--size", "32")
PARTS = (*MODEL, "-k", "3", "--background", "none")
COMMANDS = {
    "discover, folder": ("discover", "IMAGES", *PARTS, "--scale", "1", "-o", "OUT"),
    "discover, one JSON": ("discover", "IMAGES", *PARTS, "-o", "OUT.json"),
    "features, .npz": ("features", "IMAGES", *MODEL, "-o", "OUT.npz"),
    "features, .safetensors": ("features", "IMAGES", *MODEL, "-o", "OUT.safetensors"),
    "report": ("report", "IMAGES", *PARTS, "-o", "OUT.html"),
    "train, two steps": (
        "train", "part", "--data", "IMAGES", "--grow-from", "none", "--steps", "2", "--batch-size", "4", "-o", "OUT",
        "--set", "config.dim=24", "--set", "config.depth=1", "--set", "config.heads=2", "--set", "config.size=32",
        "--set", "pairs=16",
    ),
}  # fmt: skip


def write_images(folder: Path, count: int) -> None:
    """Write images that differ in their content, a hundred to a folder of folders."""
    draw = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"{number // 100:03}" / f"{number:05}"
        place.mkdir(parents=True)
        Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(place / "frame.png")


def cost(words: tuple[str, ...], images: Path, out: Path) -> tuple[float, float]:
    """Run a command, and return its CPU seconds and its highest memory in MiB.

    Raises:
        RuntimeError: it fails.
    """
    given = [word.replace("IMAGES", str(images)).replace("OUT", str(out)) for word in words]
    command = [sys.executable, "-m", "partzoo", *given]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr
    said = process.stderr.read().decode(errors="replace")
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(given)} ended with {process.returncode}: {said[-300:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for count in (FEW, SOME, MANY):
            write_images(Path(place, str(count)), count)
        for name, words in COMMANDS.items():
            found = {
                n: min(cost(words, Path(place, str(n)), Path(place, f"out-{n}-{run}")) for run in range(runs))
                for n, runs in ((FEW, 3), (SOME, 3), (MANY, 1))
            }
            each = {n: (found[n][0] - found[FEW][0]) / (n - FEW) for n in (SOME, MANY)}
            memory = found[MANY][1] / found[SOME][1]
            milliseconds = [f"{ms:.2f}" if (ms := 1000 * each[n]) > NOISE else f"under {NOISE}" for n in (SOME, MANY)]
            ratio = f"{each[MANY] / each[SOME]:.2f}" if 1000 * each[SOME] > NOISE else ""
            rows.append([name, *milliseconds, ratio, f"{memory:.2f}"])
            print(rows[-1], file=sys.stderr, flush=True)
    head = ["command", f"ms an image, {SOME:,}", f"ms an image, {MANY:,}", "ratio", "memory, ratio"]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
