"""Draw held-out images of Caltech-101, each beside the parts that a model finds in it.

    python scripts/pages/caltech.py runs/caltech/model.safetensors IMAGES.TAR -o docs/images/part-models-caltech.jpg
    python scripts/pages/caltech.py spatial-resnet32.tin IMAGES.TAR -k 6 --every 7 -o docs/images/spatial-parts.jpg

IMAGES.TAR is Caltech-101's images (CC BY 4.0), or a folder of one subfolder for each category. Every tenth image is
held out; the first of every third category is shown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import partzoo
from partzoo.data.folders import load_images

SIDE, COLUMNS = 128, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("-k", type=int, help="number of parts; by default the model's number")
    parser.add_argument("--every", type=int, default=3, help="show every n-th category")
    parser.add_argument("-o", "--out", type=Path, required=True)
    chosen = parser.parse_args()
    held_out = load_images(chosen.images, "val", side=SIDE)
    first = np.unique(held_out.labels.numpy(), return_index=True)[1][:: chosen.every]
    first = first[: len(first) // COLUMNS * COLUMNS]
    pixels = [held_out.batch(held_out.labels.new_tensor([number]))[0].permute(1, 2, 0).numpy() for number in first]
    model = partzoo.load(chosen.model)
    found = [partzoo.discover_parts(image, k=chosen.k, model=model) for image in pixels]
    tiles = [
        np.concatenate([image, np.asarray(parts.overlay().convert("RGB"))], axis=1)
        for image, parts in zip(pixels, found, strict=True)
    ]
    rows = [np.concatenate(tiles[row : row + COLUMNS], axis=1) for row in range(0, len(tiles), COLUMNS)]
    Image.fromarray(np.concatenate(rows)).save(chosen.out, quality=85)
    names = [held_out.classes[held_out.labels[number]] for number in first]
    sys.stdout.write(f"{chosen.out}: {', '.join(names)}\n")


if __name__ == "__main__":
    main()
