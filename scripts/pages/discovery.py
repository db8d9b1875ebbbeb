"""Draws the page of docs/discovery.md, thirty pictures and their parts.

    python scripts/pages/discovery.py CALTECH101

CALTECH101 is a folder with a subfolder for each category. Eight categories were named before anything was tried, two
more and the pictures were drawn by seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

import partzoo

OUT = Path(__file__).parents[2] / "docs" / "images" / "discovery.jpg"
PICTURES = {
    "Leopards": (11, 67, 131), "car_side": (52, 63, 118), "Faces": (156, 402, 425), "Motorbikes": (367, 489, 598),
    "airplanes": (143, 224, 517), "dolphin": (13, 18, 37), "sunflower": (33, 69, 80), "ibis": (19, 40, 78),
    "mandolin": (5, 7, 22), "minaret": (13, 61, 72),
}  # fmt: skip
KS = (4, 8)
SIDE, GAP, TITLE = 150, 4, 14


def fitted(picture: Image.Image) -> Image.Image:
    """A picture in the middle of a white square."""
    picture = picture.convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return square


def main(folder: Path, **options) -> Image.Image:
    """The page: a row for each category, each picture followed by its parts at K = 4 and 8."""
    columns = 1 + len(KS)
    page = Image.new("RGB", (3 * (columns * (SIDE + GAP) + 3 * GAP), len(PICTURES) * (SIDE + TITLE + GAP)), "white")
    draw = ImageDraw.Draw(page)
    for row, (category, numbers) in enumerate(PICTURES.items()):
        top = row * (SIDE + TITLE + GAP)
        draw.text((GAP, top), category, fill="black")
        for column, number in enumerate(numbers):
            file = next((folder / category).glob(f"{number:04d}.*"))
            left = column * (columns * (SIDE + GAP) + 3 * GAP)
            shown = [Image.open(file)]
            shown += [partzoo.discover_parts(file, k, **options).overlay(scale=2) for k in KS]
            for i, each in enumerate(shown):
                page.paste(fitted(each), (left + i * (SIDE + GAP), top + TITLE))
    return page


if __name__ == "__main__":
    OUT.parent.mkdir(exist_ok=True)
    main(Path(sys.argv[1]), **({"model": sys.argv[2]} if len(sys.argv) > 2 else {})).save(OUT, quality=85)
    sys.stdout.write(f"{OUT}\n")
