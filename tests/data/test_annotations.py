"""Segmentations become the masks that pycocotools draws, and segmentations that it cannot draw are named."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from partzoo.data.annotations import (
    TURNS,
    UnusableError,
    box_corners,
    check_segmentation,
    rasterized,
    turn_to_image,
    usable,
)
from partzoo.errors import UsageError

coco = pytest.importorskip("pycocotools.mask")
SIZE = (12, 20)
TRIANGLE = [2, 3, 15, 4, 8, 11]


def compressed(mask):
    return coco.encode(np.asfortranarray(mask, np.uint8))


@pytest.mark.parametrize("size", [SIZE, (1, 1), (40, 7), (300, 200)])
def test_run_lengths_give_their_mask_in_every_form(size):
    rng = np.random.default_rng(0)
    for share in (0, 0.1, 0.6, 1):
        mask = rng.random(size) < share
        runs = compressed(mask)
        for counts in (runs["counts"], runs["counts"].decode()):
            assert np.array_equal(rasterized({"size": list(size), "counts": counts}, size), mask)
    assert rasterized({"size": list(SIZE), "counts": [0, 240]}, SIZE).all()


def test_polygons_are_drawn_as_pycocotools_draws_them():
    rng = np.random.default_rng(1)
    for _ in range(50):
        shapes = [rng.uniform(-5, 25, 2 * rng.integers(3, 9)).tolist() for _ in range(rng.integers(1, 4))]
        expected = coco.decode(coco.merge(coco.frPyObjects(shapes, *SIZE)))
        assert np.array_equal(rasterized(shapes, SIZE), expected)
    # The eight numbers of a rhombus, of which, in an array, pycocotools would take the first four for a box.
    assert rasterized([[10, 2, 18, 6, 10, 10, 2, 6]], SIZE).sum() == 16 * 8 / 2
    # Polygons without area beside one that has some take nothing from it.
    assert np.array_equal(rasterized([[], TRIANGLE, [5, 6]], SIZE), rasterized([TRIANGLE], SIZE))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (None, "neither polygons nor run lengths"), ("abc", "neither polygons"), ([], "at least three corners"),
        ([[]], "at least three corners"), ([[5, 6]], "at least three corners"), ([[5, 6, 7, 8]], "three corners"),
        (TRIANGLE, "not a list of numbers"), ([[*TRIANGLE, 9]], "7 numbers"), ([[*TRIANGLE, 9, "7"]], "'7'"),
        ([[*TRIANGLE, 9, None]], "None"), ([[*TRIANGLE, 9, True]], "True"), ([[*TRIANGLE, 9, float("nan")]], "finite"),
        ([[*TRIANGLE, -float("inf"), 9]], "finite"), ([[*TRIANGLE, 10**400, 9]], "finite"),
        ([[*TRIANGLE, 1e9, 9]], r"1e\+09 is far outside its image of 20 x 12"), ([[*TRIANGLE, 9, -1e300]], "-1e"),
        ([TRIANGLE, [*TRIANGLE, 9, 41]], "41 is far outside"), ([[0, 0, 20, 12, 20, 0] * 200], "too long"),
        ({}, "size None"), ({"size": [12, 20]}, "not whole numbers"), ({"counts": [0, 240]}, "size None"),
        ({"size": [20, 12], "counts": [0, 240]}, r"size \[20, 12\] and its image is \[12, 20\]"),
        ({"size": [12, 20], "counts": [0, 239]}, "add up to 239, not to 240"),
        ({"size": [12, 20], "counts": [0, 10**18]}, "add up to 10"), ({"size": [12, 20], "counts": []}, "add up to 0"),
        ({"size": [12, 20], "counts": [-5, 245]}, "not whole"), ({"size": [12, 20], "counts": [1.5, 238.5]}, "whole"),
        ({"size": [12, 20], "counts": "0"}, "add up to 0"), ({"size": [12, 20], "counts": "\x7f"}, "damaged"),
        ({"size": [12, 20], "counts": "o"}, "end too early"), ({"size": [12, 20], "counts": "o" * 10**5}, "damaged"),
        ({"size": 12, "counts": [240]}, "size 12"), ({"size": [12, 20], "counts": "é"}, "damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_says_why(shape, reason):
    for use in (check_segmentation, rasterized):
        with pytest.raises(UnusableError, match=reason):
            use(shape, SIZE)


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, -3, 4], [1, 2, float("nan"), 4], [1, 2, 1e9, 4], "1234", None])
def test_boxes_that_are_none_are_refused(box):
    with pytest.raises(UnusableError):
        box_corners(box, SIZE)


def test_one_warning_names_what_is_passed_over_and_counts_the_rest():
    def check(annotation):
        if annotation["image_id"] == 9:
            raise UnusableError("nine")

    good = {"id": 1, "image_id": 2, "category_id": 3}
    odd = [5, {"id": 6, "image_id": 2}, good | {"id": 7, "category_id": "3"}, good | {"id": 8, "image_id": 9}]
    odd += [good | {"id": 10 + i, "image_id": 9} for i in range(40)]
    with pytest.warns(UserWarning) as warned:
        assert usable("a.json", [good, *odd, good], ("id", "image_id", "category_id"), check) == [good, good]
    (only,) = warned
    text = str(only.message)
    assert text.startswith("a.json: skipped the annotation at 1 (it is 5, not a record), annotation 6 (it has no")
    assert "annotation 7 (its category_id is '3'" in text and text.endswith("annotation 10 (nine) and 39 more.")


def stored(pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", sorted(TURNS))
def test_a_mask_drawn_before_the_image_was_turned_is_turned_along(orientation):
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image = stored(mask, orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(image))))
    assert upright.shape == (3, 2)
    assert np.array_equal(turn_to_image(image, (3, 2), (2, 3), "image", "mask is")(mask), upright)
    assert np.array_equal(turn_to_image(image, (3, 2), (3, 2), "image", "mask is")(upright), upright)


def test_a_mask_of_another_size_names_both_sizes():
    for orientation, drawn in ((1, (2, 3)), (3, (2, 3)), (6, (4, 6)), (1, (6, 4))):
        image = stored(np.zeros((3, 2), np.uint8), orientation)
        message = rf"a\.jpg is 3 x 2, and m\.png is {drawn[0]} x {drawn[1]}"
        with pytest.raises(UsageError, match=message):
            turn_to_image(image, (3, 2), drawn, "a.jpg", "m.png is")
