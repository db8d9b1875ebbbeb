"""Draws docs/images/part-models-caltech.jpg: pictures of Caltech-101 and what a learned part model finds in them.

    python docs/caltech_page.py MODEL IMAGES.TAR [-o page.jpg]

IMAGES.TAR is Caltech-101's pictures (CC BY 4.0), or a folder of one subfolder for each category. Every tenth picture is
held out; the first of every third category is shown, beside its parts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import partzoo
from partzoo.train.data import load_pictures

OUT = Path(__file__).parent / "images" / "part-models-caltech.jpg"
SIDE, EVERY, COLUMNS = 128, 3, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    held_out = load_pictures(chosen.pictures, "val", side=SIDE)
    first = np.unique(held_out.labels.numpy(), return_index=True)[1][::EVERY]
    first = first[: len(first) // COLUMNS * COLUMNS]
    pixels = [held_out.batch(held_out.labels.new_tensor([number]))[0].permute(1, 2, 0).numpy() for number in first]
    found = partzoo.discover_parts(pixels, k=None, model=chosen.model)
    tiles = [
        np.concatenate([picture, np.asarray(parts.overlay().convert("RGB"))], axis=1)
        for picture, parts in zip(pixels, found, strict=True)
    ]
    rows = [np.concatenate(tiles[row : row + COLUMNS], axis=1) for row in range(0, len(tiles), COLUMNS)]
    Image.fromarray(np.concatenate(rows)).save(chosen.out, quality=85)
    names = [held_out.classes[held_out.labels[number]] for number in first]
    sys.stdout.write(f"{chosen.out}: {', '.join(names)}\n")


if __name__ == "__main__":
    main()
