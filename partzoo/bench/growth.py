"""Measure how time and memory of ``extract_features`` and ``fit_parts`` grow with the number of images.

Each number of images is measured in a separate process. The peak memory is the rise above what the process holds once
the model is loaded. Features are computed one image at a time and added to a running sum; a caller who
keeps them needs additional memory to store them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from PIL import Image
from torch import nn

from partzoo.bench.memory import in_its_own_process, rise
from partzoo.bench.photograph import photograph
from partzoo.bench.runner import Comparison, Unit, compared
from partzoo.discovery.pipeline import FIT_IMAGES, fit_parts
from partzoo.features import DEFAULT_MODEL, Features, extract_features
from partzoo.images.opening import open_images
from partzoo.models.loading import load
from partzoo.system.device import Device, device_of

IMAGES = (100, 1_000, 10_000)
SIDES = 64, 96  # shortest and longest side of the images, in pixels
TARGET = 1.1  # equal cost, with a tolerance for the difference between two runs of one process


def outcomes(quick: bool, _: int, device: Device = None) -> Iterator[dict[str, Any]]:
    """Compare the largest number of images with the next smaller one, by time and memory of each kind of work."""
    numbers, model = ((2, 4), "toy-vit") if quick else (IMAGES, DEFAULT_MODEL)
    measured = cost if quick else cost_in_its_own_process
    with TemporaryDirectory(prefix="partzoo-bench-") as folder:
        for number in numbers:
            write_images(Path(folder, str(number)), number)
        for work in WORKS:
            runs = {number: [measured(work, Path(folder, str(number)), model, device)] for number in numbers}
            units: tuple[Unit, ...] = ("seconds_per_image", "mebibytes")
            for unit in units:
                yield _outcome(work, unit, {n: [run[unit] for run in runs[n]] for n in numbers}, quick)


def _outcome(work: str, unit: Unit, figures: dict[int, list[float]], quick: bool) -> dict[str, Any]:
    *_, fewer, most = figures
    what = Comparison(
        f"{work}, {most:,} images, {'peak memory' if unit == 'mebibytes' else 'time'}",
        f"{work} over {most:,} images of {SIDES[0]} to {SIDES[1]} px",
        f"the same over {fewer:,}",
        target=None if quick else TARGET,
        measure="cost",
        unit=unit,
        items=None if unit == "mebibytes" else 1,
        facts={"by_images": {str(number): float(f"{median(values):.4g}") for number, values in figures.items()}}
        | ({"fitted_on_at_most": FIT_IMAGES} if work == "fit_parts" else {}),
    )
    return compared(what, figures[most], figures[fewer])


def write_images(folder: Path, number: int, sides: tuple[int, int] = SIDES) -> None:
    """Write JPEG files, each with a different crop of the photograph, with sides between two numbers of pixels."""
    folder.mkdir()
    image = Image.fromarray(photograph(448)[0])
    rng = np.random.default_rng(0)
    for index in range(number):
        width, height = rng.integers(*sides, 2, endpoint=True).tolist()
        x, y = (int(rng.integers(0, whole - side)) for whole, side in zip(image.size, (width, height), strict=True))
        image.crop((x, y, x + width, y + height)).save(folder / f"{index:06}.jpg")


def _extract(folder: Path, encoder: nn.Module) -> np.ndarray:
    total: Any = 0
    for image in open_images(folder)[0]:
        total = total + cast(Features, extract_features(image, model=encoder)).pooled
    return total


def _fit(folder: Path, encoder: nn.Module) -> Any:
    return fit_parts(folder, model=encoder)


WORKS: dict[str, Callable[[Path, nn.Module], Any]] = {"extract_features": _extract, "fit_parts": _fit}


def cost(work: str, folder: Path, model: str, device: Device = None) -> dict[str, float]:
    """Do the work in this process; report the seconds per image and the largest rise of its memory in MiB."""
    encoder = load(model, device=device)
    began = time.perf_counter()
    mebibytes = rise(lambda: WORKS[work](folder, encoder))
    seconds = time.perf_counter() - began
    images = sum(1 for _ in folder.iterdir())
    return {"seconds_per_image": seconds / images, "mebibytes": mebibytes}


def cost_in_its_own_process(work: str, folder: Path, model: str, device: Device = None) -> dict[str, float]:
    """Run :func:`cost` in a fresh process."""
    return in_its_own_process("partzoo.bench.growth", work, str(folder), model, str(device_of(device)))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(cost(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])))
