"""Draw docs/images/part-models.png, faces of the dev split and the parts that a learned part model finds in them.

    python scripts/pages/part_models.py MODEL --data FACES [-k 4] [-o page.png] [--photographs]

Each face is of a different person. The faces may not be copied, so the page in the docs shows only parts, and
--photographs, which puts each photograph beside its parts, needs a different output file with -o.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from faces import of_different_people
from PIL import Image, ImageDraw

import partzoo
from partzoo.evaluate.protocols import faces68
from partzoo.parts import drawing

OUT = Path(__file__).parents[2] / "docs" / "images" / "part-models.png"
SIDE, GAP, LEGEND, IMAGES, ROWS = faces68.SIDE, 6, 20, 16, 4


def legend(k: int, width: int) -> Image.Image:
    """Draw every part's number in its colour."""
    strip = Image.new("RGB", (width, LEGEND), "white")
    pen = ImageDraw.Draw(strip)
    for part, colour in enumerate(drawing.palette(k).tolist()[1:], start=1):
        left = (part - 1) * 2 * LEGEND
        pen.rectangle((left, 2, left + LEGEND - 4, LEGEND - 4), fill=tuple(colour))
        pen.text((left + LEGEND, 4), str(part), fill="black")
    return strip


def shown(parts: partzoo.Parts, photograph: bool) -> list[Image.Image]:
    """Draw the parts as flat colours on grey; with ``photograph``, also the photograph and the parts over it."""
    if photograph:
        return [Image.fromarray(parts.image), parts.overlay()]
    colours = drawing.palette(parts.k)
    colours[0] = 235
    return [Image.fromarray(colours[parts.labels])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("-k", type=int)
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    parser.add_argument("--photographs", action="store_true")
    chosen = parser.parse_args()
    if chosen.photographs and chosen.out == OUT:
        parser.error("--photographs is not for the docs: choose another file with -o")
    faces = faces68.load(chosen.data, "dev")
    images = faces.images[of_different_people(np.arange(len(faces)), faces.person, IMAGES)]
    found = partzoo.discover_parts(list(images), chosen.k, model=chosen.model)
    rows = np.array_split(np.arange(len(found)), ROWS)
    across = len(shown(found[0], chosen.photographs)) * len(rows[0])
    page = Image.new("RGB", (across * (SIDE + GAP), ROWS * (SIDE + GAP) + LEGEND), "white")
    for row, numbers in enumerate(rows):
        tiles = [tile for i in numbers for tile in shown(found[i], chosen.photographs)]
        for column, tile in enumerate(tiles):
            page.paste(tile, (column * (SIDE + GAP), row * (SIDE + GAP)))
    page.paste(legend(found[0].k, page.width), (0, ROWS * (SIDE + GAP)))
    page.save(chosen.out)
    sys.stdout.write(f"{chosen.out}: {len(found)} faces of the dev split, {found[0].k} parts\n")


if __name__ == "__main__":
    main()
