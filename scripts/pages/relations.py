"""Draw docs/images/relations.jpg: photographs that a PART model rebuilds from their patches (figure 4).

    python scripts/pages/relations.py [--model NAME] [--data TINY-IMAGENET -o OUT]

With --data, the images are validation images of Tiny-ImageNet. Each column shows 64 patches at their true positions, at
the positions predicted from one patch, and at those that fit the predictions of all pairs best; the last image shows
each patch's uncertainty, bright if it is high.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

import partzoo
from partzoo.data.folders import load_images
from partzoo.models.part.model import Part

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = ("ibis", "motorbike", "sunflower", "dolphin", "cat", "astronaut")
COUNT, SIDE, GAP = 8, 160, 6


def validation_images(data: Path) -> list[Image.Image]:
    """Return eight images, evenly spaced over the classes."""
    images = load_images(data, "val", side=64)
    numbers = torch.linspace(0, len(images) - 1, COUNT).long()
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.batch(numbers)]


def column(image: Path | Image.Image, model: Part, seed: int) -> tuple[Image.Image, str, float]:
    """Return an image's panels in a column, its errors in words, and the error relative to chance."""
    relations = partzoo.relate(image, model=model, seed=seed)
    one, every = relations.assemble(0), relations.assemble()
    spread = relations.uncertainty_map()
    low, high = np.nanmin(spread), np.nanmax(spread)
    grey = np.nan_to_num(55 + 200 * (spread - low) / (high - low))
    shade = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    panels = [
        panel.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for panel in (one.truth, one.image, every.image, shade)
    ]
    found = Image.new("RGB", (SIDE, len(panels) * (SIDE + GAP) - GAP), "white")
    for place, panel in enumerate(panels):
        found.paste(panel, (0, place * (SIDE + GAP)))
    longer = max(relations.image.shape[:2])
    chance = np.linalg.norm(relations.centres - relations.centres.mean(0), axis=1).mean()
    x, y = relations.symmetry_correlation()
    told = (
        f"by one patch {one.error / longer:.1%} of the longer side off, by all {every.error / longer:.1%}, "
        f"all in the middle {chance / longer:.1%}; corr(x_ij, -x_ji) {x:.2f}, y {y:.2f}"
    )
    return found, told, every.error / chance


@click.command(help=__doc__)
@click.option("--model", default="part-vitt8", show_default=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", default=ROOT / "docs" / "images" / "relations.jpg", type=click.Path(path_type=Path))
def main(model: str, data: Path | None, out: Path) -> None:
    images = validation_images(data) if data else [ROOT / "examples" / "images" / f"{name}.jpg" for name in PHOTOGRAPHS]
    loaded, columns, ratios = partzoo.load(model), [], []
    for number, image in enumerate(images):
        panels, told, ratio = column(image, loaded, number)
        columns.append(panels)
        ratios.append(ratio)
        sys.stdout.write(f"{image.stem if data is None else number}: {told}\n")
    page = Image.new("RGB", (len(columns) * (SIDE + GAP) - GAP, columns[0].height), "white")
    for place, panels in enumerate(columns):
        page.paste(panels, (place * (SIDE + GAP), 0))
    page.save(out, quality=88)
    sys.stdout.write(f"by all over all in the middle: {np.mean(ratios):.2f}\n{out}\n")


if __name__ == "__main__":
    main()
