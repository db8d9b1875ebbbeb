"""Compare the parts of faces that fill the image with those of the same faces pasted into photographs.

    python experiments/small_faces.py --faces FACES --photographs PHOTOGRAPHS.TAR [--count 20] [--share 0.1]

Each face of the dev split of faces68, of a different person, is pasted at a random place into a photograph of one clear
object, where it fills the given share of the area. Its parts are those of the whole image with the model's full name.
Those of the photograph are found with the name and with the alias "faces". Agreement is the share of the face's pixels,
at its size in the photograph, that have the same label. Distance is the mean distance between the centroids of a part,
in per cent of the distance between the eyes, over the parts that are found in both. Outside is the share of the rest of
the photograph that is a part.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from math import sqrt
from pathlib import Path

import numpy as np
from PIL import Image

import partzoo
from partzoo.evaluate.protocols import faces68
from partzoo.images.opening import open_image
from partzoo.weights.manifest import full_name

ALIAS, CLEAR = "faces", "/msra/"


def photographs(archive: Path, count: int) -> list[np.ndarray]:
    """Return the pixels of evenly spaced photographs of one clear object."""
    with tarfile.open(archive) as tar:
        names = sorted(name for name in tar.getnames() if CLEAR in f"/{name}" and name.endswith(".avif"))
        return [open_image(tar.extractfile(names[i * len(names) // count]).read()).pixels for i in range(count)]


def pasted(
    face: np.ndarray, photograph: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Paste a face into a photograph; return the mixture and the face's box (left, top, right, bottom)."""
    height, width = photograph.shape[:2]
    side = min(round(sqrt(share * height * width)), height, width)
    left, top = int(generator.integers(width - side + 1)), int(generator.integers(height - side + 1))
    mixture = photograph.copy()
    mixture[top : top + side, left : left + side] = resized(face, side)
    return mixture, (left, top, left + side, top + side)


def resized(face: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(face).resize((side, side), Image.Resampling.LANCZOS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faces", required=True)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.1)
    chosen = parser.parse_args()
    data = faces68.load(chosen.faces, "dev")
    first = np.unique(data.person, return_index=True)[1]
    first = first[np.arange(chosen.count) * len(first) // chosen.count]
    generator = np.random.default_rng(0)
    model = partzoo.load(full_name(ALIAS), device="cpu", dtype="float32")
    rows = []
    for number, photograph in zip(first, photographs(chosen.photographs, chosen.count), strict=True):
        face, points = data.images[number], data.landmarks[number]
        mixture, box = pasted(face, photograph, chosen.share, generator)
        left, top, right, bottom = box
        whole = partzoo.discover_parts(face, model=model)
        wanted = np.asarray(Image.fromarray(whole.labels).resize((right - left,) * 2, Image.Resampling.NEAREST))
        plain, framed = (partzoo.discover_parts(mixture, model=each) for each in (model, ALIAS))
        outside = np.ones(framed.size, bool)
        outside[top:bottom, left:right] = False
        eyes = np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0)) / len(face)
        places = (whole.centroids + 0.5) / len(face)
        row = [framed.quality]
        for each in (plain, framed):
            moved = (each.centroids + 0.5 - (left, top)) / (right - left) - places
            row += [
                float((each.labels[top:bottom, left:right] == wanted).mean()),
                float(np.nanmean(np.linalg.norm(moved, axis=1)) / eyes),
                float((each.labels[outside] > 0).mean()),
            ]
        rows.append(row)
        sys.stdout.write(" ".join(f"{value:.2f}" for value in row) + "\n")
        sys.stdout.flush()
    means = 100 * np.mean(rows, axis=0)
    sys.stdout.write(f"{len(rows)} faces at {chosen.share:g} of the area, mean quality {means[0]:.0f}; per cent:\n")
    for name, (agreement, distance, strays) in zip((full_name(ALIAS), ALIAS), means[1:].reshape(2, 3), strict=True):
        sys.stdout.write(f"{name}: agreement {agreement:.1f}, distance {distance:.1f}, outside {strays:.1f}\n")


if __name__ == "__main__":
    main()
