"""Draw docs/images/faces.png: the faces on which landmarks are predicted best and worst from a model's parts.

    python scripts/pages/faces.py FACES [--model NAME] [-k 8] [--photographs -o page.png]

Each face is of a different person of the report split. White rings are the true landmarks; black crosses are the
regression's predictions from part centroids. The faces may not be copied, so the page in the docs shows only parts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import partzoo
from partzoo.evaluate.parts.landmarks import LandmarkRegression, inter_ocular, normalized_mean_error, part_centroids
from partzoo.evaluate.protocols import faces68
from partzoo.features import DEFAULT_MODEL
from partzoo.parts import drawing

OUT = Path(__file__).parents[2] / "docs" / "images" / "faces.png"
SIDE, GAP, TITLE, COLUMNS = 160, 6, 16, 8


def found(model: str, k: int, faces: str) -> tuple[faces68.Faces, list, np.ndarray, np.ndarray]:
    """Return the images of the report split, their parts, predicted landmarks, and each image's error in per cent."""
    train, report = faces68.load(faces, "train")[: faces68.FACES68.fit_images], faces68.load(faces, "report")
    vocabulary = partzoo.fit_parts(list(train.images), k=k, model=model)
    centroids = []
    for split in (train, report):
        parts = partzoo.discover_parts(list(split.images), vocabulary=vocabulary)
        centroids.append(part_centroids(np.stack([each.labels for each in parts]), k))
    predicted = LandmarkRegression(centroids[0], faces68.five_points(train.landmarks)).predict(centroids[1])
    true = faces68.five_points(report.landmarks)
    errors = [
        normalized_mean_error(predicted[i : i + 1], true[i : i + 1], inter_ocular(true[i : i + 1]))
        for i in range(len(true))
    ]
    return report, parts, predicted, np.array(errors)


def of_different_people(order: np.ndarray, person: np.ndarray, count: int) -> list[int]:
    """Return the first image of each of ``count`` people, in the given order."""
    seen: dict[int, int] = {}
    for index in order:
        seen.setdefault(int(person[index]), int(index))
    return list(seen.values())[:count]


def drawn(parts: partzoo.Parts, true: np.ndarray, predicted: np.ndarray, photograph: bool) -> Image.Image:
    """Draw a face's parts under its true and its predicted landmarks."""
    colours = drawing.palette(parts.k)
    colours[0] = 235
    image = parts.overlay() if photograph else Image.fromarray(colours[parts.labels])
    pen = ImageDraw.Draw(image)
    for (x, y), (u, v) in zip(true, predicted, strict=True):
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), outline="black", fill="white")
        for turn in (-1, 1):
            pen.line((u - 3, v - 3 * turn, u + 3, v + 3 * turn), fill="black", width=2)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faces")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("-k", type=int, default=8)
    parser.add_argument("--photographs", action="store_true")
    parser.add_argument("-o", "--out", default=OUT)
    chosen = parser.parse_args()
    report, parts, predicted, errors = found(chosen.model, chosen.k, chosen.faces)
    true = faces68.five_points(report.landmarks)
    order = errors.argsort()
    rows = {"best": order, "median": np.abs(errors - np.median(errors)).argsort(), "worst": order[::-1]}
    page = Image.new("RGB", (COLUMNS * (SIDE + GAP), len(rows) * (SIDE + TITLE + GAP)), "white")
    for row, numbers in enumerate(rows.values()):
        for column, i in enumerate(of_different_people(numbers, report.person, COLUMNS)):
            left, top = column * (SIDE + GAP), row * (SIDE + TITLE + GAP)
            page.paste(drawn(parts[i], true[i], predicted[i], chosen.photographs), (left, top + TITLE))
            ImageDraw.Draw(page).text((left + 2, top + 2), f"{errors[i]:.0f} %", fill="black")
    page.save(chosen.out)
    sys.stdout.write(f"{chosen.out}: {' / '.join(rows)}, median error {np.median(errors):.1f} %\n")


if __name__ == "__main__":
    main()
