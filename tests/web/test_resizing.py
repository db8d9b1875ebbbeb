"""The page resizes images exactly as Pillow does."""

from pathlib import Path

import numpy as np
import pytest
from helpers.javascript import needs_node, run
from helpers.versions import as_pillow_13
from PIL import Image

from partzoo.images.preprocess import resized, working_size

pytestmark = needs_node
IMAGES = Path(__file__).parents[2] / "examples" / "images"


def resized_by_page(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    planes = image.transpose(2, 0, 1).reshape(3, -1).tolist()
    call = "[...resized(planes.map((each) => Uint8Array.from(each)), before, after)]"
    found = run("resizing.js", call, planes=planes, before=image.shape[:2], after=size)
    return np.array(found).reshape(3, *size).transpose(1, 2, 0)


@as_pillow_13
@pytest.mark.parametrize(
    "size", [(64, 96), (320, 448), (169, 100), (200, 448), (160, 204), (64, 200), (168, 208), (169, 208), (3, 5)]
)
def test_pixels_are_those_of_pillow(size):
    image = np.asarray(Image.open(IMAGES / "ibis.jpg").convert("RGB"))
    assert np.array_equal(resized_by_page(image, size), resized(image, size, "bicubic"))


def test_extremes_are_those_of_pillow():
    """Black and white beside each other overshoot, and strong reduction has many weights."""
    image = (255 * (np.random.default_rng(0).random((300, 500, 3)) > 0.5)).astype(np.uint8)
    for size in ((16, 32), (299, 500), (333, 501)):
        assert np.array_equal(resized_by_page(image, size), resized(image, size, "bicubic")), size


@pytest.mark.parametrize("longer, multiple", [(448, 32), (256, 32), (300, 64)])
def test_the_working_size_is_the_one_of_images(longer, multiple):
    sizes = [(h, w) for h in range(1, 900, 83) for w in (1, 44, 333, 640, 1024)]
    sizes += [(3 * n, 4 * n) for n in range(50, 250)]  # 4:3, at which rows of 32 pixels often end in one half
    call = "sizes.map((size) => workingSize(size, longer, multiple))"
    found = run("resizing.js", call, sizes=sizes, longer=longer, multiple=multiple)
    expected = [[max(side, 2 * multiple) for side in working_size(size, longer, multiple)] for size in sizes]
    assert found == expected
