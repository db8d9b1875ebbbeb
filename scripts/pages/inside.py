"""Draw docs/images/attention.png and docs/images/reconstruction.png: what a part model looks at, and what it restores.

    python scripts/pages/inside.py

Both show the face of examples/images/astronaut.jpg. The first has a row for each of two PartFormers: the attention of
each part embedding, background first. The second has a row for each share of hidden patches: the face, what MPAE sees
of it, and what MPAE restores; and a row with the face as PartFormer draws it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import partzoo

ROOT = Path(__file__).parents[2]
FACE = (130, 20, 310, 200)  # left, top, right and bottom of the face in the photograph
MODELS = ("partformer-lite0.faces-k8", "partformer-resnet18.faces-k8")
MPAE, HIDDEN = "mpae-patchresnet14.faces-k8", (0.5, 0.75, 0.9)
SIDE, GAP = 128, 4


def stacked(rows: Sequence[Image.Image]) -> Image.Image:
    """Put images below each other."""
    page = Image.new("RGB", (max(row.width for row in rows), len(rows) * (SIDE + GAP) - GAP), "white")
    for number, row in enumerate(rows):
        page.paste(row, (0, number * (SIDE + GAP)))
    return page


def main() -> None:
    with Image.open(ROOT / "examples" / "images" / "astronaut.jpg") as photograph:
        face = photograph.convert("RGB").crop(FACE)
    maps = [partzoo.part_attention(face, model=name) for name in MODELS]
    drawn = [partzoo.reconstruct(face, model=MPAE, hidden=share) for share in HIDDEN]
    drawn.append(partzoo.reconstruct(face, model=MODELS[1]))
    pages = {
        "attention": stacked([partzoo.draw_attention(face, each, side=SIDE) for each in maps]),
        "reconstruction": stacked([each.draw(side=SIDE) for each in drawn]),
    }
    for name, page in pages.items():
        page.save(ROOT / "docs" / "images" / f"{name}.png", optimize=True)
        sys.stdout.write(f"docs/images/{name}.png\n")


if __name__ == "__main__":
    main()
