import dataclasses

import numpy as np
import pytest
from helpers.drawn_faces import write_faces

from partzoo.data.reading import Example
from partzoo.errors import UsageError
from partzoo.evaluate import run
from partzoo.evaluate.parts.rotation import rotated
from partzoo.evaluate.protocols import faces68, get

FACES, CUB, PARTIMAGENET = (get(name) for name in ("faces68", "cub", "partimagenet-ood"))
EYE, MOUTH, SKIN = (30, 30, 90), (190, 40, 60), (230, 190, 160)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("faces"), {"train": 4, "dev": 3, "report": 3})


@pytest.mark.parametrize("degrees", [-30, -15, 15, 30])
def test_landmarks_stay_on_what_they_mark(faces, degrees):
    for example in faces68.load(faces, "dev"):
        turned = rotated(example, degrees, FACES)
        assert turned.image.shape == example.image.shape and turned.visible is None
        left, right, *_ = faces68.five_points(turned.points)
        mouth = turned.points[48:68].mean(0)
        for point, colour in ((left, EYE), (right, EYE), (mouth, MOUTH)):
            x, y = np.rint(point).astype(int)
            assert np.abs(turned.image[y, x].astype(int) - colour).max() < 40
        angle = np.degrees(np.arctan2(left[1] - right[1], right[0] - left[0]))
        assert angle == pytest.approx(degrees)  # the right eye rises: counter-clockwise


@pytest.mark.parametrize(("protocol", "edge"), [(FACES, 1), (CUB, 0)])
def test_a_quarter_turn_is_exact(protocol, edge):
    """Points count from the first pixel's centre in the image's pixels, and from the border on a grid."""
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    example = Example(image, np.array([[3.0, 5.0], [16.0, 2.0]]), box=(2.0, 4.0, 6.0, 2.0))
    turned = rotated(example, 90, protocol)
    assert (turned.image == np.rot90(image)).all()
    assert np.allclose(turned.points, [[5, 20 - edge - 3], [2, 20 - edge - 16]])
    assert np.allclose(turned.box, (5 - 3, 20 - edge - 5 - 1, 6, 2))


def test_masks_turn_too_and_background_comes_in():
    mask = np.random.default_rng(0).integers(0, 40, (128, 128))
    example = Example(np.zeros((224, 224, 3), np.uint8), mask=mask, category=3)
    turned = rotated(example, 90, PARTIMAGENET)
    assert (turned.mask == np.rot90(mask)).all() and turned.mask.dtype == np.int64 and turned.category == 3
    assert rotated(example, 30, PARTIMAGENET).mask[0, 0] == PARTIMAGENET.background


def test_landmarks_that_leave_a_grid_are_invisible():
    points = np.array([[1.0, 1.0], [50.0, 50.0], [60.0, 50.0]])
    example = Example(np.zeros((100, 100, 3), np.uint8), points)
    assert rotated(example, 30, CUB).visible.tolist() == [False, True, True]
    hidden = dataclasses.replace(example, visible=np.array([True, True, False]))
    assert rotated(hidden, 30, CUB).visible.tolist() == [False, True, False]
    assert rotated(hidden, 0, CUB).visible.tolist() == [True, True, False]


def test_the_record_names_the_angle_and_only_reported_images_turn(faces):
    options = {"k": [3], "seeds": 1, "size": 64}
    upright, turned = (run.evaluate("colour-position", "faces68", faces, rotate=r, **options) for r in (0, -15))
    assert turned["setting"] == "size=64,rotate=-15" and turned["command"].endswith("--size 64 --rotate -15")
    assert turned["runs"] != upright["runs"]
    assert turned["runs"] == run.evaluate("colour-position", "faces68", faces, rotate=-15, **options)["runs"]


def test_classes_have_no_rotation(faces):
    with pytest.raises(UsageError, match="rotate cannot be set for tiny-imagenet"):
        run.evaluate("toy-vit", "tiny-imagenet", faces, rotate=15)
