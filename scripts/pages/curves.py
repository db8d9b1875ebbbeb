"""Plot the losses of training runs from their ``log.csv`` files, stored here as results/training/NAME.csv.

    python scripts/pages/curves.py results/training/*.csv -o docs/images/curves.png

Each term is a thin line over the images seen, and its running median a thick line.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

NOT_TERMS = {"step", "images", "seconds", "lr"}
WINDOW = 9  # number of rows in the running median
COLUMNS, SIZE = 5, (2.6, 2.0)


def running_median(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, WINDOW // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, WINDOW), axis=1)


def draw(logs: list[Path], out: Path) -> None:
    panels = []
    for log in logs:
        with open(log, newline="") as file:
            rows = list(csv.DictReader(file))
        images = np.array([float(row["images"]) for row in rows]) / 1000
        terms = [name for name in rows[0] if name not in NOT_TERMS]
        panels += [(log.stem, name, images, np.array([float(row[name]) for row in rows])) for name in terms]
    lines = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(lines, COLUMNS, figsize=(SIZE[0] * COLUMNS, SIZE[1] * lines), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (run, name, images, values) in zip(axes.flat, panels, strict=False):
        axis.set_axis_on()
        axis.plot(images, values, lw=0.5, color="#9bb8d3")
        axis.plot(images, running_median(values), lw=1.5, color="#1f4e79")
        axis.set_title(f"{run}\n{name.replace('_', ' ')}", fontsize=7)
        axis.set_xlabel("thousand images", fontsize=6)
        axis.tick_params(labelsize=6)
    figure.tight_layout()
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parents[2] / "docs" / "images" / "curves.png")
    arguments = parser.parse_args()
    draw(arguments.logs, arguments.out)
    sys.stdout.write(f"{arguments.out}\n")
