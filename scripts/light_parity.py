"""Compares ``partzoo discover`` with and without torch, for docs/speed.md.

    python scripts/light_parity.py IMAGES.tar [COUNT]

It labels COUNT of the images in the archive (500, evenly spaced) both ways, each image alone, and prints the share of
pixels with equal labels. Then it runs the command on one photograph, with both engines in turn, and prints the medians
of CPU time and of peak memory of the whole process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

import partzoo
from partzoo.discovery.pipeline import divided
from partzoo.images.opening import open_image
from partzoo.light.finder import LightFinder

PHOTOGRAPH = Path(__file__).parents[1] / "examples" / "images" / "ibis.jpg"
REPETITIONS = 5


def agreement(archive: Path, count: int) -> None:
    """Print the share of pixels whose labels are equal, over all images and of the worst."""
    finder, shares, pixels = LightFinder(keep=True), [], []
    with tarfile.open(archive) as tar:
        members = sorted((member for member in tar if member.isfile()), key=lambda member: member.name)
        for index in np.linspace(0, len(members) - 1, min(count, len(members))).round().astype(int):
            file = tar.extractfile(members[index])
            assert file is not None, "only regular files are listed"
            image = open_image(file.read())
            expected = partzoo.discover_parts(image).labels
            found = divided(finder, image, None, None, "auto", 0).labels
            shares.append((found == expected).mean())
            pixels.append(expected.size)
    shares = np.array(shares)
    print(
        f"{len(shares)} images: {np.average(shares, weights=pixels):.5%} of pixels have equal labels; "
        f"all of {(shares == 1).sum()}, at least 99.9 % of {(shares >= 0.999).sum()}, worst {shares.min():.3%}"
    )


def costs() -> None:
    """Print CPU time and peak memory of the command with each engine."""
    runs: dict[str, list[tuple[float, float]]] = {"torch": [], "onnxruntime": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(REPETITIONS):
            for engine, found in runs.items():
                out = os.path.join(folder, "parts.png")
                command = [sys.executable, "-m", "partzoo", "discover", str(PHOTOGRAPH), "-o", out, "--engine", engine]
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
                _, status, used = os.wait4(process.pid, 0)
                assert not status, f"{command} failed"
                found.append((used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
    medians = {
        engine: [statistics.median(column) for column in zip(*found, strict=True)] for engine, found in runs.items()
    }
    for engine, (seconds, mebibytes) in medians.items():
        print(f"{engine}: {seconds:.2f} s of CPU, {mebibytes:.0f} MiB")
    ratios = [light / heavy for light, heavy in zip(medians["onnxruntime"], medians["torch"], strict=True)]
    print(f"ratios: {ratios[0]:.3f} of the CPU time, {ratios[1]:.3f} of the memory; medians of {REPETITIONS}")


if __name__ == "__main__":
    costs()
    if len(sys.argv) > 1:
        agreement(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 500)
