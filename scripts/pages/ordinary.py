"""Draw 48 ordinary photographs with their foreground and parts: docs/images/ordinary-1.jpg to ordinary-4.jpg.

    pip install scikit-image scikit-learn
    python scripts/pages/ordinary.py photographs.tar

Forty of the photographs are excluded from training the foreground model; they were drawn at random, with a fixed seed,
before anyone looked at them. The others are from scikit-image and scikit-learn. Nothing was trained or chosen on any of
them.
"""

from __future__ import annotations

import argparse
import tarfile
import tomllib
from importlib.resources import files
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageDraw

import partzoo
from partzoo.images.opening import open_image

OUT = Path(__file__).parents[2] / "docs" / "images"
RECIPE = "foreground-lite0.masks"
PACKAGED = ("astronaut", "camera", "chelsea", "coffee", "rocket", "stereo_motorcycle", "china", "flower")
SIDE, TITLE, GAP, COLUMNS, SHEETS = 230, 16, 6, 3, 4


def drawn(archive: Path) -> dict[str, Image.Image]:
    """Return the photographs that the recipe leaves out, by name."""
    recipe = tomllib.loads(files("partzoo.train").joinpath("recipes", f"{RECIPE}.toml").read_text())
    with tarfile.open(archive) as tar:
        found = {PurePosixPath(member.name).name: member for member in tar if member.isfile()}
        return {
            name: Image.fromarray(open_image(tar.extractfile(found[name]).read()).pixels)
            for name in sorted(recipe["data"]["exclude"])
        }


def packaged() -> dict[str, Image.Image]:
    """Return the photographs that are part of scikit-image and scikit-learn."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    found = {}
    for name in PACKAGED:
        pixels = load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(skimage.data, name)()
        if isinstance(pixels, tuple):  # a stereo pair with its disparities
            pixels = pixels[0]
        found[name] = Image.fromarray(np.asarray(pixels)).convert("RGB")
    return found


def fitted(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return square


def sheet(images: dict[str, Image.Image], first: int) -> Image.Image:
    """Draw each photograph beside its parts, with its number and the foreground's quality."""
    rows = -(-len(images) // COLUMNS)
    cell = (2 * SIDE + GAP, SIDE + TITLE)
    page = Image.new("RGB", (COLUMNS * (cell[0] + GAP), rows * (cell[1] + GAP)), "white")
    draw = ImageDraw.Draw(page)
    for place, (name, image) in enumerate(images.items()):
        parts = partzoo.discover_parts(image)
        left, top = place % COLUMNS * (cell[0] + GAP), place // COLUMNS * (cell[1] + GAP)
        stem = name.removesuffix(".avif")
        draw.text((left + 2, top + 2), f"{first + place}. {stem}, quality {parts.quality:.2f}", fill="black")
        page.paste(fitted(image), (left, top + TITLE))
        large = parts.overlay(scale=max(1, round(2 * SIDE / max(parts.size))))
        page.paste(fitted(large), (left + SIDE + GAP, top + TITLE))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    images = list((drawn(chosen.photographs) | packaged()).items())
    each = -(-len(images) // SHEETS)
    for number in range(SHEETS):
        part = dict(images[number * each : (number + 1) * each])
        sheet(part, number * each + 1).save(chosen.out / f"ordinary-{number + 1}.jpg", quality=82)


if __name__ == "__main__":
    main()
