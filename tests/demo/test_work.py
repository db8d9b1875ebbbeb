from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partzoo.demo import work
from partzoo.errors import UsageError
from partzoo.parts.parts import Parts

PHOTOGRAPH = Path(__file__).parents[2] / "examples" / "images" / "ibis.jpg"


def drawing(**changes):
    return {"background": Image.open(PHOTOGRAPH), "layers": []} | changes


def test_an_image_gives_parts_and_files(tmp_path):
    found = work.divide(drawing(), "any object", 3, "find the object", tmp_path)
    parts = Parts.load(tmp_path / "parts.npz")
    assert [row[0] for row in found.rows] == list(parts.present) and parts.k == 3
    assert [row[1] for row in found.rows] == pytest.approx(parts.areas / parts.labels.size * 100, abs=0.06)
    assert found.overlay.width >= 600 and "Confidence" in found.remark
    assert sorted(map(str, tmp_path.iterdir())) == sorted(found.files)


def test_a_painted_area_is_the_foreground(tmp_path):
    layer = Image.new("RGBA", Image.open(PHOTOGRAPH).size)
    layer.paste((255, 0, 0, 255), (40, 30, 140, 120))
    work.divide(drawing(layers=[layer]), "any object", 2, "find the object", tmp_path)
    inside = np.zeros((layer.height, layer.width), bool)
    inside[30:120, 40:140] = True
    assert np.array_equal(Parts.load(tmp_path / "parts.npz").labels > 0, inside)


def test_the_whole_image_can_be_divided(tmp_path):
    work.divide(drawing(), "any object", 4, work.WHOLE, tmp_path)
    assert (Parts.load(tmp_path / "parts.npz").labels > 0).all()


def test_a_large_image_is_reduced_with_what_was_painted_on_it():
    large = Image.new("RGB", (4000, 2000), "white")
    layer = Image.new("RGBA", large.size)
    layer.paste((255, 0, 0, 255), (0, 0, 2000, 2000))
    image, mask = work.painted({"background": large, "layers": [layer]})
    assert image.size == (1600, 800) and mask.shape == (800, 1600)
    assert mask[:, :799].all() and not mask[:, 801:].any()


def test_transparent_pixels_become_white():
    image, mask = work.painted({"background": Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "layers": []})
    assert image.getpixel((0, 0)) == (255, 255, 255) and mask is None


def test_two_images_share_their_numbers():
    image = Image.open(PHOTOGRAPH)
    first, second = work.divide_together(image, image, 3)
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_faces_are_exchanged():
    photograph = Image.open(PHOTOGRAPH.with_name("astronaut.jpg")).crop((130, 20, 310, 200))
    other = photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    kept, mixed = (work.exchange(photograph, other, numbers) for numbers in ([], ["1", "2", "3"]))
    assert kept.shape == mixed.shape and not np.array_equal(kept, mixed)


@pytest.mark.parametrize("missing", [None, {"background": None, "layers": []}], ids=["nothing", "no image"])
def test_a_missing_image_is_one_clear_error(missing, tmp_path):
    with pytest.raises(UsageError, match="Choose an image first"):
        work.divide(missing, "any object", 3, "find the object", tmp_path)
    with pytest.raises(UsageError, match="Choose an image first"):
        work.divide_together(None, None, 3)
