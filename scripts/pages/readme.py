"""Draw the README's image: default parts of photographs, motorbikes with one vocabulary, PartFormer on a face.

    python scripts/pages/readme.py CALTECH101.TAR

The motorbikes all face right in Caltech-101, so every second one is mirrored here.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import partzoo

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "images" / "parts.jpg"
PHOTOGRAPHS = ("ibis", "cat", "motorbike", "sunflower", "dolphin")
MOTORBIKES = range(40, 540, 50)  # numbers of ten of them, evenly spaced
FITTED = slice(0, None, 8)  # the vocabulary is fitted on every eighth motorbike
FACE, FACE_MODEL = (120, 20, 330, 230), "partformer-resnet18.faces-k8"  # box: left, top, right, bottom in astronaut.jpg
BIKE_K, GAP, WIDTH = 5, 8, 1700


def pair(parts: partzoo.Parts, height: int) -> Image.Image:
    """Draw an image above its parts."""
    rows, columns = parts.size
    size = (round(columns * height / rows), height)
    both = Image.new("RGB", (size[0], 2 * height + GAP), "white")
    both.paste(Image.fromarray(parts.image).resize(size, Image.Resampling.LANCZOS))
    scale = max(1, -(-2 * height // rows))
    both.paste(parts.overlay(scale=scale).resize(size, Image.Resampling.LANCZOS), (0, height + GAP))
    return both


def row(parts: Sequence[partzoo.Parts]) -> Image.Image:
    """Draw images above their parts, side by side, ``WIDTH`` pixels wide."""
    aspects = sum(each.size[1] / each.size[0] for each in parts)
    height = round((WIDTH - GAP * (len(parts) - 1)) / aspects)
    pairs = [pair(each, height) for each in parts]
    joined, left = Image.new("RGB", (WIDTH, pairs[0].height), "white"), 0
    for each in pairs:
        joined.paste(each, (left, 0))
        left += each.width + GAP
    return joined


def motorbikes(archive: Path) -> list[partzoo.Parts]:
    """Find the parts of ten motorbikes, every second one mirrored, with one vocabulary."""
    with tarfile.open(archive) as tar:
        names = sorted(name for name in tar.getnames() if "/Motorbikes/" in f"/{name}")
        images = [Image.open(io.BytesIO(tar.extractfile(name).read())).convert("RGB") for name in names]
    vocabulary = partzoo.fit_parts(images[FITTED], BIKE_K)
    chosen = [images[number] for number in MOTORBIKES]
    chosen[1::2] = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in chosen[1::2]]
    return partzoo.discover_parts(chosen, vocabulary=vocabulary)


def main(archive: Path) -> None:
    folder = ROOT / "examples" / "images"
    face = Image.open(folder / "astronaut.jpg").crop(FACE)
    first = [partzoo.discover_parts(folder / f"{name}.jpg") for name in PHOTOGRAPHS]
    first.append(partzoo.discover_parts(face, model=FACE_MODEL))
    bikes = motorbikes(archive)
    rows = [row(first), row(bikes[:5]), row(bikes[5:])]
    page = Image.new("RGB", (WIDTH, sum(each.height + 3 * GAP for each in rows)), "white")
    top = 0
    for each in rows:
        page.paste(each, (0, top))
        top += each.height + 3 * GAP
    page.save(OUT, quality=85)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.write(f"{OUT}\n")
