"""Draw docs/images/taught-celebamask.png, -cars.png and -clothing.png: labels, and what twenty labelled images teach.

    python scripts/pages/taught_sheets.py --data DIR [--photographs -o FOLDER]

Each sheet has twenty evenly spaced images of the dev split, the labels of each beside the parts that are found. The
photographs may not be copied, so the sheets in the docs show only parts, and --photographs, which puts each photograph
before them, needs another folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

import partzoo
from partzoo.data.masks import MaskedSet, find_set
from partzoo.evaluate import protocols
from partzoo.evaluate.protocols.taught import TaughtProtocol
from partzoo.evaluate.taught import drawn
from partzoo.parts import drawing

OUT = Path(__file__).parents[2] / "docs" / "images"
PROTOCOLS = ("taught-celebamask", "taught-cars", "taught-clothing")
TAUGHT, SHOWN, COLUMNS = 20, 20, 5
SIDE, GAP = 96, 6


def tile(pixels: np.ndarray) -> Image.Image:
    """Return an image in a square of ``SIDE`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return square


def sheet(rules: TaughtProtocol, data: Path, *, photographs: bool) -> Image.Image:
    """Teach parts with the first draw of labelled images, and draw them beside the labels of other images."""
    place = find_set(data, rules.data)
    train, dev = MaskedSet(place, "train"), MaskedSet(place, "dev")
    examples = [train[index] for index in drawn(train, 0)[:TAUGHT]]
    labels = [rules.labels_of(each.mask) for each in examples]
    images = [each.pixels for each in examples]
    vocabulary = partzoo.fit_parts(images, labels=labels, names=rules.labels, sided=True)
    colours, wide = drawing.palette(len(rules.labels)), 2 + photographs
    width, height = wide * SIDE + GAP, SIDE + GAP
    page = Image.new("RGB", (COLUMNS * width, -(-SHOWN // COLUMNS) * height), "white")
    for number in range(SHOWN):
        example = dev[number * len(dev) // SHOWN]
        found = partzoo.discover_parts(example.pixels, vocabulary=vocabulary)
        tiles = [example.pixels] * photographs + [colours[rules.labels_of(example.mask)], colours[found.labels]]
        for place_in_row, pixels in enumerate(tiles):
            left = number % COLUMNS * width + place_in_row * SIDE
            page.paste(tile(pixels), (left, number // COLUMNS * height))
    return page if photographs else page.quantize(len(colours) + 1, dither=Image.Dither.NONE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photographs", action="store_true")
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    if chosen.photographs and chosen.out.resolve() == OUT:
        parser.error("the photographs may not be copied into the docs: choose another folder with -o")
    for name in PROTOCOLS:
        path = chosen.out / f"{name}.png"
        sheet(cast(TaughtProtocol, protocols.get(name)), chosen.data, photographs=chosen.photographs).save(path)
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
