"""Draw photographs beside their parts, by default and with the remedies of docs/failures.md: docs/images/remedies.jpg.

python scripts/pages/remedies.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps

import partzoo

ROOT = Path(__file__).parents[2]
SIDE, TITLE, GAP = 300, 18, 8
REMEDIES: list[tuple[str, dict[str, Any]]] = [
    ("sunflower", {"k": 2}),
    ("dolphin", {"k": 4}),
    ("sunflower", {"k": 4, "background": None}),
    ("astronaut", {"k": 8, "size": 672}),
]


def cell(image: Image.Image, title: str) -> Image.Image:
    """Return an image with a title, ``SIDE`` pixels wide."""
    image = ImageOps.contain(image.convert("RGB"), (SIDE, SIDE))
    box = Image.new("RGB", (SIDE, image.height + TITLE), "white")
    ImageDraw.Draw(box).text((2, 3), title, fill="black")
    box.paste(image, ((SIDE - image.width) // 2, TITLE))
    return box


def row(name: str, options: dict[str, Any]) -> list[Image.Image]:
    """Return a photograph, its parts by default and its parts with the options."""
    path = ROOT / "examples" / "images" / f"{name}.jpg"
    default, remedied = partzoo.discover_parts(path), partzoo.discover_parts(path, **options)
    scale = 2 if max(default.size) < SIDE else 1
    words = ", ".join(f"{key}={value}" for key, value in options.items())
    return [
        cell(Image.open(path), name),
        cell(default.overlay(scale=scale), "default settings"),
        cell(remedied.overlay(scale=scale), words),
    ]


def main() -> None:
    """Draw the page."""
    rows = [row(name, options) for name, options in REMEDIES]
    heights = [max(each.height for each in cells) + GAP for cells in rows]
    page = Image.new("RGB", (3 * (SIDE + GAP), sum(heights)), "white")
    for y, cells in enumerate(rows):
        for x, each in enumerate(cells):
            page.paste(each, (x * (SIDE + GAP), sum(heights[:y])))
    page.save(ROOT / "docs" / "images" / "remedies.jpg", quality=85)


if __name__ == "__main__":
    main()
