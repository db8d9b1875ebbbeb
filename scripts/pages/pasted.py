"""Draw docs/images/pasted.jpg: faces with the mouth and chin of another face, and with its whole face.

    python scripts/pages/pasted.py IMAGES.TAR

IMAGES.TAR is Caltech-101's images (CC BY 4.0). Each row shows two faces, and the first with parts of the second.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import numpy as np
from exchange import PAIRS, face
from PIL import Image

import partzoo
from partzoo.parts.pasting import paste_parts

OUT = Path(__file__).parents[2] / "docs" / "images" / "pasted.jpg"
MODEL = "partformer-lite0.faces-k8"
CHOICES = ((4, 5), (3, 4, 5, 7, 8))  # mouth and chin; these, forehead, nose and eyes


def main(archive: Path) -> None:
    rows = []
    with tarfile.open(archive) as tar:
        for numbers in PAIRS:
            images = [face(tar, number) for number in numbers]
            first, second = partzoo.discover_parts(images, model=MODEL)
            mixed = [paste_parts(first, second, parts) for parts in CHOICES]
            rows.append(np.concatenate([*map(np.asarray, images), *mixed], axis=1))
    page = Image.fromarray(np.concatenate(rows))
    page.resize((page.width * 3 // 4, page.height * 3 // 4), Image.Resampling.LANCZOS).save(OUT, quality=85)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.write(f"{OUT}\n")
