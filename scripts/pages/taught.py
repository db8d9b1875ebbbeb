"""Draw docs/images/taught.jpg: strokes on four photographs of examples/ibises, and the parts that they teach.

python scripts/pages/taught.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import partzoo
from partzoo.parts.drawing import palette

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "images" / "taught.jpg"
IMAGES, LABELS = (ROOT / "examples" / "ibises" / kind for kind in ("images", "labels"))
NAMES = ("head", "body", "legs")
WIDTH, HEIGHT, COLUMNS = 312, 280, 5


def strokes(image: Path) -> Image.Image:
    """Draw the strokes that label an image over it, those of the background in white."""
    pixels, labels = np.array(Image.open(image)), np.asarray(Image.open(LABELS / f"{image.stem}.png"))
    colours = palette(len(NAMES))
    colours[0] = 255
    pixels[labels < 255] = colours[labels[labels < 255]]
    return Image.fromarray(pixels).resize((pixels.shape[1] * 2, pixels.shape[0] * 2), Image.Resampling.NEAREST)


def main() -> None:
    images = sorted(IMAGES.glob("*.jpg"))
    words = partzoo.fit_parts(IMAGES, labels=LABELS, names=NAMES)
    tiles = [strokes(image) for image in images if (LABELS / f"{image.stem}.png").exists()]
    tiles += [Image.new("RGB", (1, 1), "white")] * (-len(tiles) % COLUMNS)
    tiles += [parts.overlay(scale=2) for parts in partzoo.discover_parts(images, vocabulary=words)]
    page = Image.new("RGB", (COLUMNS * WIDTH, len(tiles) // COLUMNS * HEIGHT), "white")
    for place, tile in enumerate(tiles):
        tile.thumbnail((WIDTH - 4, HEIGHT - 4))
        page.paste(tile, (place % COLUMNS * WIDTH, place // COLUMNS * HEIGHT))
    page.save(OUT, quality=85)
    sys.stdout.write(f"{OUT}\n{words.evaluate(IMAGES, LABELS)}\n")


if __name__ == "__main__":
    main()
