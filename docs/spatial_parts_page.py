"""Draws docs/images/spatial-parts.jpg: twelve pictures of Caltech-101, each beside the parts that a model finds in it.

    python docs/spatial_parts_page.py images.tar

images.tar is Caltech-101's pictures (CC BY 4.0), or a folder of one subfolder for each category. Every tenth picture is
held out; the first of every seventh category is shown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import partzoo
from partzoo.train.data import load_pictures

OUT = Path(__file__).parent / "images" / "spatial-parts.jpg"
SIDE, EVERY, COUNT, COLUMNS, PARTS = 160, 7, 12, 4, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model", default="spatial-resnet32.tin")
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    held_out = load_pictures(chosen.pictures, "val", side=SIDE)
    first = np.unique(held_out.labels.numpy(), return_index=True)[1][::EVERY][:COUNT]
    pixels = [held_out.batch(held_out.labels.new_tensor([number]))[0].permute(1, 2, 0).numpy() for number in first]
    tiles = [
        np.concatenate(
            [
                picture,
                np.asarray(partzoo.discover_parts(picture, k=PARTS, model=chosen.model).overlay().convert("RGB")),
            ],
            axis=1,
        )
        for picture in pixels
    ]
    rows = [np.concatenate(tiles[row : row + COLUMNS], axis=1) for row in range(0, len(tiles), COLUMNS)]
    Image.fromarray(np.concatenate(rows)).save(chosen.out, quality=85)
    sys.stdout.write(f"{chosen.out}\n")


if __name__ == "__main__":
    main()
