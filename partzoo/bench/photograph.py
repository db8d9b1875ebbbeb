"""The photograph that the benchmarks use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

ASTRONAUT = Path(__file__).parents[2] / "examples" / "images" / "astronaut.jpg"


def photograph(side: int = 448) -> tuple[np.ndarray, str]:
    """Return an image ``(side, side, 3)`` uint8 and a description of it.

    A clone has the astronaut in ``examples/images``. An installed package has no images, so a synthetic one is made
    with the soft shapes and the grain of a photograph.
    """
    if ASTRONAUT.is_file():
        with Image.open(ASTRONAUT) as image:
            return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)), ASTRONAUT.name
    rng = np.random.default_rng(0)
    shapes = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)).resize((side, side))
    shapes = shapes.quantize(12).convert("RGB").filter(ImageFilter.GaussianBlur(1))
    pixels = np.asarray(shapes) + rng.normal(0, 6, (side, side, 3))
    return pixels.clip(0, 255).astype(np.uint8), "synthetic image"
