"""Compare what two builds of partzoo take for a folder of images: processor time, wall time, cores and memory.

The builds run in turn, each in a process of its own:

    python experiments/folders.py IMAGES --against ../main --repetitions 3 -o results/folders.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from partzoo.bench.process import Spent, spent
from partzoo.files import write_aside
from partzoo.images.opening import open_images
from partzoo.system.hardware import hardware

WORKS = {
    "discover, torch": ("discover", "-k", "6", "-o", "out", "--engine", "torch"),
    "discover, ONNX Runtime": ("discover", "-k", "6", "-o", "out", "--engine", "onnxruntime"),
    "discover, labels only, torch": ("discover", "-k", "6", "-o", "out", "--engine", "torch", "--format", ".index.png"),
    "features": ("features", "-o", "out.npz", "--size", "224"),
    "pooled features": ("features", "-o", "out.npz", "--size", "224", "--pooled"),
}


def copied(images: str, count: int, folder: Path) -> Path:
    """Copy some of the images, evenly spaced, to a new folder, and return it."""
    files = open_images(images)[0].sources
    folder.mkdir()
    for place in range(count):
        file = Path(files[place * len(files) // count])
        shutil.copy(file, folder / f"{place:04}{file.suffix}")
    return folder


def summary(runs: list[Spent], images: int) -> dict[str, Any]:
    """Return the medians of some runs, and the runs."""
    return {
        "cpu_ms_per_image": round(1000 * statistics.median(each.cpu for each in runs) / images, 1),
        "wall_ms_per_image": round(1000 * statistics.median(each.wall for each in runs) / images, 1),
        "cores_busy": round(statistics.median(each.busy for each in runs), 2),
        "peak_mebibytes": round(statistics.median(each.mebibytes for each in runs)),
        "runs": [asdict(each) for each in runs],
    }


def main() -> None:
    """Measure, print each comparison, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="folder of images")
    parser.add_argument("--against", type=Path, required=True, help="clone of another version")
    parser.add_argument("--count", type=int, default=100, help="number of images")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--works", nargs="*", choices=WORKS, default=list(WORKS))
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()
    record: dict[str, Any] = {"images": given.count, "hardware": hardware(), "works": {}}
    with TemporaryDirectory() as place:
        folder = copied(given.images, given.count, Path(place, "images"))
        for work in given.works:
            command, *options = WORKS[work]
            words = [command, str(folder), *options]
            runs: dict[str, list[Spent]] = {"this": [], "other": []}
            for _ in range(given.repetitions):
                runs["this"].append(spent(words))
                runs["other"].append(spent(words, given.against.resolve()))
            found = {build: summary(each, given.count) for build, each in runs.items()}
            record["works"][work] = found
            print(work)
            for build, each in found.items():
                print("  ", build, {name: value for name, value in each.items() if name != "runs"}, flush=True)
            ratios = {
                name: round(found["this"][name] / found["other"][name], 2) for name in found["this"] if name != "runs"
            }
            print("   ratio", ratios, flush=True)
    if given.out:
        with write_aside(given.out) as file:
            file.write((json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
