"""Draw docs/images/exchange.jpg: faces with swapped parts (PartFormer, figure 11), and attention (figure 1).

    python scripts/pages/exchange.py IMAGES.TAR [--model NAME]

IMAGES.TAR is Caltech-101's images (CC BY 4.0). Each row shows two faces; the first as the model reconstructs it; with
the second's parts from the mouth down; with all of the second's parts; then each part embedding's attention in the
first.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

import partzoo

OUT = Path(__file__).parents[2] / "docs" / "images" / "exchange.jpg"
PAIRS = ((20, 430), (430, 130), (300, 390), (90, 260))  # numbers of images in Faces_easy
LOWER = 0.55  # share of the height below which a part's centre must be for the part to be taken first
SIDE, GAP = 128, 4


def face(archive: tarfile.TarFile, number: int) -> Image.Image:
    """Crop the middle square of one of Caltech-101's faces."""
    image = Image.open(archive.extractfile(f"Faces_easy/{number:04d}.avif")).convert("RGB")
    side, (width, height) = min(image.size), image.size
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((2 * SIDE, 2 * SIDE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tar", type=Path)
    parser.add_argument("--model", default="partformer-resnet18.faces-k8")
    chosen = parser.parse_args()
    model = partzoo.load(chosen.model)
    rows = []
    with tarfile.open(chosen.tar) as archive:
        for numbers in PAIRS:
            first, second = (face(archive, number) for number in numbers)
            found = partzoo.discover_parts(first, k=None, model=model)
            lower = [part for part, (_, y) in enumerate(found.centroids, 1) if y > LOWER * found.size[0]]
            drawn = [Image.fromarray(partzoo.swap_parts(model, first, second, parts)) for parts in ([], lower, None)]
            tiles = [tile.resize((SIDE, SIDE)) for tile in (first, second, *drawn)]
            attention = partzoo.draw_attention(first, partzoo.part_attention(first, model=model), side=SIDE)
            row = Image.new("RGB", (5 * (SIDE + GAP) + attention.width, SIDE), "white")
            for place, tile in enumerate(tiles):
                row.paste(tile, (place * (SIDE + GAP), 0))
            row.paste(attention, (5 * (SIDE + GAP), 0))
            rows.append(np.asarray(row))
    spaced = [part for row in rows for part in (row, np.full((GAP, *row.shape[1:]), 255, np.uint8))][:-1]
    Image.fromarray(np.concatenate(spaced)).save(OUT, quality=88)
    sys.stdout.write(f"{OUT}\n")


if __name__ == "__main__":
    main()
