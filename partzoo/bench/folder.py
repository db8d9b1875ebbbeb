"""Time ``partzoo discover`` and ``partzoo features`` on a folder of images: with all cores, and with one.

Each run is a process of its own, whose processor time, wall time and peak memory the system reports.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from partzoo.bench.growth import write_images
from partzoo.bench.process import Spent, spent
from partzoo.bench.runner import Comparison, compared
from partzoo.system.cores import usable_cores

IMAGES, SIDES = 100, (240, 320)  # number of images, and their shortest and longest side in pixels
BUSY = 0.95  # target: share of the cores that are busy
WORKS = {
    "discover": ("discover", "-k", "6", "-o", "out"),
    "features": ("features", "-o", "out.npz", "--size", "224"),
}


def outcomes(quick: bool, repetitions: int) -> Iterator[dict[str, Any]]:
    """Compare each command with all cores to the same with one core."""
    number, model = (3, ("--model", "toy-vit")) if quick else (IMAGES, ())
    cores = usable_cores()
    with TemporaryDirectory(prefix="partzoo-bench-") as folder:
        images = Path(folder, "images")
        write_images(images, number, SIDES)
        for work, (command, *options) in WORKS.items():
            words = [command, str(images), *options, *model]
            runs: dict[str, list[Spent]] = {"all": [], "one": []}
            for _ in range(repetitions):
                runs["all"].append(spent(words))
                runs["one"].append(spent(words, one_core=True))
            yield _outcome(work, runs["all"], runs["one"], number, cores, quick)


def _outcome(
    work: str, ours: Sequence[Spent], peer: Sequence[Spent], number: int, cores: int, quick: bool
) -> dict[str, Any]:
    def median(name: str) -> float:
        return float(f"{statistics.median(getattr(each, name) for each in ours):.4g}")

    what = Comparison(
        f"partzoo {work}, folder of {number}, {cores} cores",
        f"all {cores} cores",
        "one core",
        target=None if quick or cores == 1 else round(BUSY * cores, 2),
        items=number,
        facts={"cpu_seconds": median("cpu"), "cores_busy": median("busy"), "peak_mebibytes": median("mebibytes")},
    )
    return compared(what, [each.wall for each in ours], [each.wall for each in peer])
