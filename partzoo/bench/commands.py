"""Time whole commands, as users run them, against another build of partzoo.

Each run is a process of its own, and both builds use the same libraries. A command runs over few images and over more,
or for few steps and for more; the difference is the cost of one. What both builds have to start is thereby left out.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import partzoo
from partzoo.bench.folder import SIDES
from partzoo.bench.growth import write_images
from partzoo.bench.process import Spent, spent
from partzoo.bench.runner import Comparison, Unit, compared
from partzoo.errors import UsageError
from partzoo.files import expand_user
from partzoo.weights.manifest import VARIABLE

FEW, MORE = 2, 102  # numbers of images in the folders
STEPS = 2, 12  # numbers of training steps, where Work states no others
OWN = Path(partzoo.__file__).parents[1]  # folder that holds this build's package
CHECKPOINTS = OWN / "checkpoints"  # of a clone
OURS, PEER = "this build", "the other build"


@dataclass(frozen=True)
class Work:
    """A command to time.

    Attributes:
        name: what it does.
        words: arguments, with IMAGES, STEPS and OUT to be replaced.
        items: number of images in a step, or 1 for a command whose cost is per image; 0 takes the whole process.
        targets: ratios to reach by unit, see :class:`partzoo.bench.runner.Comparison`.
        cores: whether to use all cores rather than one.
        steps: fewer and more training steps, of which the difference is taken; more where a step takes milliseconds.
        ours: further arguments for this build, which the other one may not know.
    """

    name: str
    words: tuple[str, ...]
    items: int
    targets: dict[Unit, float]
    cores: bool = False
    steps: tuple[int, int] = STEPS
    ours: tuple[str, ...] = ()


def training(method: str, target: float, *options: str, steps: tuple[int, int] = STEPS) -> Work:
    """Return the training of a method, of whose images per second at least ``target`` times the peer's is expected."""
    words = ("train", method, "--data", "IMAGES", "--steps", "STEPS", "--batch-size", "8", "-o", "OUT", *options)
    return Work(f"train {method}", words, 8, {"cpu_seconds_per_image": round(1 / target, 3)}, steps=steps)


FEATURES = ("features", "IMAGES", "--size", "224", "-o", "OUT.npz")


WORKS = (
    Work("discover, one photograph", ("discover", "IMAGES/000000.jpg", "-o", "OUT.png"), 0,
         {"cpu_seconds": 0.20, "mebibytes": 0.20}),
    Work("discover, a folder, one core", ("discover", "IMAGES", "-o", "OUT"), 1, {"cpu_seconds_per_image": 0.40}),
    Work("discover, a folder, all cores", ("discover", "IMAGES", "-o", "OUT"), 1, {"seconds_per_image": 0.33}, True),
    Work("features at 224 px, a folder, one core", FEATURES, 1, {"cpu_seconds_per_image": 0.50}),
    Work("features at 224 px, a folder, one core, engine auto", FEATURES, 1, {"cpu_seconds_per_image": 0.50},
         ours=("--engine", "auto")),
    training("part", 1.1, "--grow-from", "none", steps=(2, 102)),
    training("partformer", 1.15),
    training("mpae", 1.3),
    training("spatial", 1.2, "--grow-from", "none", steps=(2, 202)),
)  # fmt: skip
TINY = (
    Work(
        "discover, one photograph", ("discover", "IMAGES/000000.jpg", "-k", "2", "-o", "OUT.png"), 0, {"mebibytes": 1}
    ),
    Work("discover, a folder", ("discover", "IMAGES", "-k", "2", "-o", "OUT"), 1, {"cpu_seconds_per_image": 1}),
)


def outcomes(quick: bool, repetitions: int, against: str | Path | None = None) -> Iterator[dict[str, Any]]:
    """Compare this build's commands with those of a wheel.

    Raises:
        UsageError: no wheel is given, or it cannot be read.
        PartzooError: a command fails.
    """
    if against is None:
        raise UsageError("The row commands compares two builds: name the other one's wheel with --against.")
    numbers = (1, 2) if quick else (FEW, MORE)
    with tempfile.TemporaryDirectory(prefix="partzoo-bench-") as place:
        folder = Path(place)
        peer = _unpacked(expand_user(against), folder / "peer")
        for number in numbers:
            write_images(folder / str(number), number, SIDES)
        for work in TINY if quick else WORKS:
            yield from _compared(work, folder, peer, numbers, quick, repetitions)


def _unpacked(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel and return the folder to import it from."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if "partzoo/__init__.py" not in archive.namelist():
                raise UsageError(f"{wheel} is not a wheel of partzoo.")
            archive.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{wheel} cannot be read ({error}): name a wheel of partzoo.") from error
    return folder


def _compared(
    work: Work, folder: Path, peer: Path, numbers: Sequence[int], quick: bool, repetitions: int
) -> Iterator[dict[str, Any]]:
    """Run a command of both builds in turn, and yield an outcome for each of its units."""
    sides = {OURS: OWN, PEER: peer}
    figures: dict[str, list[Spent]] = {OURS: [], PEER: []}
    for _ in range(repetitions + 1):
        for name, source in sides.items():
            figures[name].append(_cost_of_one(work, folder, source, numbers))
    units: dict[Unit, str] = {"cpu_seconds": "cpu", "cpu_seconds_per_image": "cpu", "seconds_per_image": "wall"}
    for unit, target in work.targets.items():
        ours, theirs = ([getattr(cost, units.get(unit, "mebibytes")) for cost in figures[n][1:]] for n in (OURS, PEER))
        yield compared(
            Comparison(
                f"{work.name}{', peak memory' if unit == 'mebibytes' else ''}",
                f"partzoo {' '.join(work.words)}",
                PEER,
                target=None if quick else target,
                measure="cost",
                unit=unit,
                facts={"cores_busy": round(figures[OURS][-1].busy, 2)} if work.cores else {},
            ),
            ours,
            theirs,
        )


def _cost_of_one(work: Work, folder: Path, source: Path, numbers: Sequence[int]) -> Spent:
    """Return what one image costs, or the whole process."""
    few, more = numbers
    if not work.items:
        return run_process(work, folder / str(few), few, source)
    trained = "STEPS" in work.words
    counts = work.steps if trained else (few, more)
    images = folder / str(more)
    first, second = (run_process(work, images if trained else folder / str(n), n, source) for n in counts)
    each = (counts[1] - counts[0]) * work.items
    return Spent((second.cpu - first.cpu) / each, (second.wall - first.wall) / each, second.mebibytes)


def run_process(work: Work, images: Path, steps: int, source: Path) -> Spent:
    """Run a command in a process of its own, with the package in the folder ``source``.

    Raises:
        PartzooError: it fails.
    """
    given = {"IMAGES": str(images), "STEPS": str(steps), "OUT": "out"}
    # Training reads weights that a wheel does not hold.
    weights = {} if VARIABLE in os.environ else {VARIABLE: str(CHECKPOINTS)}
    further = work.ours if source == OWN else ()
    words = [_filled(word, given) for word in (*work.words, *further)]
    return spent(words, source, one_core=not work.cores, environment=weights)


def _filled(word: str, given: dict[str, str]) -> str:
    for name, value in given.items():
        word = word.replace(name, value)
    return word
