"""Measure how many pixels keep their part number when an image is changed (table in docs/discovery.md).

    python experiments/robustness.py DATA -o results/robustness.csv

DATA is the folder with ``masks/``, whose report splits of celebamask, clothing and cars are used. One vocabulary is
fitted on each set's training split. Every image is labelled with and without the change, labels are mapped back to the
image's original size, and pixels whose label is not 0 are counted.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

import partzoo
from partzoo.data.masks import MaskedSet, find_set

SETS = ("celebamask", "clothing", "cars")
K = 8


def scaled(factor: float) -> tuple[Callable, Callable]:
    """Return a function that scales an image, and one that maps labels back."""

    def change(image: Image.Image) -> Image.Image:
        size = [max(round(n * factor), 1) for n in image.size]
        return image.resize(size, Image.Resampling.LANCZOS)

    def back(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return np.asarray(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))

    return change, back


def same(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return labels


def jpeg(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=50)
    return Image.open(data).convert("RGB")


def brighter(factor: float) -> Callable:
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def cut(image: Image.Image) -> Image.Image:
    """Crop the central 80 % of each side."""
    width, height = image.size
    return image.crop((width // 10, height // 10, width - width // 10, height - height // 10))


def uncut(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Place the labels of the central part in the whole image, surrounded by 0, which is not counted."""
    whole = np.full(size, -1, np.int64)
    top, left = size[0] // 10, size[1] // 10
    whole[top : top + labels.shape[0], left : left + labels.shape[1]] = labels
    return whole


CHANGES: dict[str, tuple[Callable, Callable]] = {
    "mirrored": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), lambda labels, _: labels[:, ::-1]),
    "half size": scaled(0.5),
    "double size": scaled(2),
    "JPEG, quality 50": (jpeg, same),
    "30 % darker": (brighter(0.7), same),
    "30 % brighter": (brighter(1.3), same),
    "central 80 %": (cut, uncut),
}


def shares(data: Path, name: str, limit: int | None) -> dict[str, float]:
    """Compute the share of the labelled pixels, in per cent, that keep their number under each change."""
    train = [each.pixels for each in MaskedSet(find_set(data, name), "train")][:limit]
    vocabulary = partzoo.fit_parts(train, K)
    kept, counted = dict.fromkeys(CHANGES, 0), dict.fromkeys(CHANGES, 0)
    report = MaskedSet(find_set(data, name), "report")
    for index in range(min(limit or len(report), len(report))):
        example = report[index]
        before = partzoo.discover_parts(example.pixels, vocabulary=vocabulary).labels
        for what, (change, back) in CHANGES.items():
            changed = change(Image.fromarray(example.pixels))
            after = back(partzoo.discover_parts(changed, vocabulary=vocabulary).labels, before.shape)
            counts = (example.mask > 0) & (after >= 0)
            kept[what] += int((before == after)[counts].sum())
            counted[what] += int(counts.sum())
    return {what: 100 * kept[what] / max(counted[what], 1) for what in CHANGES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="largest number of images of each split")
    chosen = parser.parse_args()
    found = {name: shares(chosen.data, name, chosen.limit) for name in SETS}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    with chosen.out.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["change", *SETS])
        rows.writerows([what, *(round(found[name][what], 1) for name in SETS)] for what in CHANGES)


if __name__ == "__main__":
    main()
