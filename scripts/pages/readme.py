"""Draws the README's picture: the bundled default model on things, PartFormer on a face.

    python scripts/pages/readme.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

import partzoo

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "images" / "parts.jpg"
PHOTOGRAPHS = ("ibis", "motorbike", "sunflower", "dolphin")
FACE, FACE_MODEL = (120, 20, 330, 230), "partformer-resnet18.faces-k8"  # left, top, right, bottom in astronaut.jpg
K, HEIGHT, GAP = 6, 260, 8


def column(picture: Path | Image.Image, **options) -> Image.Image:
    """A photograph above its parts."""
    parts = partzoo.discover_parts(picture, **options)
    height, width = parts.size
    size = (round(width * HEIGHT / height), HEIGHT)
    pair = Image.new("RGB", (size[0], 2 * HEIGHT + GAP), "white")
    pair.paste(Image.fromarray(parts.image).resize(size, Image.Resampling.LANCZOS))
    scale = max(1, round(HEIGHT / height))
    pair.paste(parts.overlay(scale=scale).resize(size, Image.Resampling.LANCZOS), (0, HEIGHT + GAP))
    return pair


if __name__ == "__main__":
    pictures = ROOT / "examples" / "images"
    columns = [column(pictures / f"{name}.jpg", k=K) for name in PHOTOGRAPHS]
    columns.append(column(Image.open(pictures / "astronaut.jpg").crop(FACE), k=None, model=FACE_MODEL))
    width = sum(each.width for each in columns) + GAP * (len(columns) - 1)
    row, left = Image.new("RGB", (width, columns[0].height), "white"), 0
    for each in columns:
        row.paste(each, (left, 0))
        left += each.width + GAP
    row.save(OUT, quality=88)
    sys.stdout.write(f"{OUT}\n")
