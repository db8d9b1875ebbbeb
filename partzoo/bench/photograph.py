"""The photograph that the bench works on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

ASTRONAUT = Path(__file__).parents[2] / "examples" / "images" / "astronaut.jpg"


def photograph(side: int = 448) -> tuple[np.ndarray, str]:
    """An image ``(side, side, 3)`` uint8 and what it is.

    The astronaut of ``examples/images`` in a clone; an installed package has no images, and makes one with
    the soft shapes and the grain of a photograph.
    """
    if ASTRONAUT.is_file():
        with Image.open(ASTRONAUT) as image:
            return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)), ASTRONAUT.name
    rng = np.random.default_rng(0)
    shapes = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)).resize((side, side))
    shapes = shapes.quantize(12).convert("RGB").filter(ImageFilter.GaussianBlur(1))
    pixels = np.asarray(shapes) + rng.normal(0, 6, (side, side, 3))
    return pixels.clip(0, 255).astype(np.uint8), "synthetic image"
