"""Foregrounds given by the caller."""

import numpy as np
import pytest
import torch
from PIL import Image

import partzoo
from partzoo.discovery.masks import open_mask
from partzoo.errors import ImageError, UsageError

SIZE = (60, 80)


@pytest.fixture(scope="module")
def encoder():
    return partzoo.load("toy-vit", device="cpu")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def left_half():
    mask = np.zeros(SIZE, bool)
    mask[:, :40] = True
    return mask


def grey_mask():
    mask = np.where(left_half(), 255, 100).astype(np.uint8)
    mask[:9, :9] = 200
    return mask


@pytest.mark.parametrize(
    "given",
    [
        left_half(), left_half().astype(float), left_half().astype(np.uint8), left_half().astype(np.uint8) * 255,
        grey_mask(), torch.from_numpy(left_half()), Image.fromarray(left_half()),
        Image.fromarray(left_half().astype(np.uint8) * 255), (0, 0, 40, 60), [0.2, 0.0, 39.8, 60.0],
        np.array([0, 0, 40, 60]), torch.tensor([0.2, 0.0, 39.8, 60.0]),
        {"segmentation": left_half(), "area": 2400, "bbox": [0, 0, 40, 60], "predicted_iou": 0.9},
    ],
)  # fmt: skip
def test_masks_of_every_kind_are_one_object(given):
    assert np.array_equal(open_mask(given, SIZE), left_half().astype(int))


def test_255_beside_object_numbers_is_void(tmp_path):
    objects = np.zeros(SIZE, np.uint8)
    objects[10:30, 10:30], objects[30:50, 30:50] = 1, 7
    voc = np.where(np.pad(objects, 1)[:-2, 1:-1] > objects, 255, objects).astype(np.uint8)
    assert (voc == 255).any()
    Image.fromarray(voc).save(tmp_path / "voc.png")
    for given in (voc, tmp_path / "voc.png"):
        assert np.array_equal(open_mask(given, SIZE), objects)


def test_low_opacity_is_background():
    alpha = Image.fromarray(np.where(left_half(), 255, 100).astype(np.uint8))
    cut = Image.merge("LA", [Image.new("L", SIZE[::-1]), alpha])
    assert np.array_equal(open_mask(cut, SIZE), left_half())


def test_files_and_the_opacity_of_cutouts_are_masks(tmp_path):
    grey, cut = tmp_path / "grey.png", tmp_path / "cut.png"
    Image.fromarray(left_half().astype(np.uint8) * 255).save(grey)
    Image.merge("RGBA", [Image.new("L", SIZE[::-1])] * 3 + [Image.open(grey)]).save(cut)
    for path in (grey, str(cut)):
        assert np.array_equal(open_mask(path, SIZE), left_half().astype(int))
    with pytest.raises(ImageError, match=r"No such file: .*nothing\.png"):
        open_mask(tmp_path / "nothing.png", SIZE)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match=r"text\.png.*cannot be read"):
        open_mask(tmp_path / "text.png", SIZE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((30, 80), bool), r"\(30, 80\) and the image \(60, 80\)"), ((0, 0, 90, 60), "inside 80 x 60"),
        ((10, 0, 10, 60), "not a box"), ((0, 0, float("nan"), 9), "four finite numbers"),
        ((0, 0, float("inf"), 9), "four finite numbers"), (("a", 0, 9, 9), "four finite numbers"),
        (np.array([1, 2, 3]), "four finite numbers"), (np.full(SIZE, -1), "int64"),
        (np.where(left_half(), np.nan, 1), "holds nan"), (left_half() * -1.0, "holds -1 to"),
        (left_half() * 0.4, "holds 0 to 0.4"), (np.zeros(SIZE, complex), "complex"),
        ({"segmentation": {"size": [60, 80], "counts": "abc"}}, "'segmentation' is not an array: pass what SAM"),
        ({"bbox": [0, 0, 40, 60]}, "'segmentation' is not an array"),
        ([{"segmentation": left_half()}], "four finite numbers"),
    ],
)  # fmt: skip
def test_wrong_masks_are_named(given, message):
    with pytest.raises(UsageError, match=message):
        open_mask(given, SIZE)


@pytest.mark.parametrize("k", [3, "auto"])
def test_parts_fill_the_mask_and_nothing_else(encoder, image, k):
    mask = left_half()
    mask[5, 70] = True  # one pixel, smaller than a cell
    parts = partzoo.discover_parts(image, k, model=encoder, mask=mask)
    assert np.array_equal(parts.labels > 0, mask) and parts.quality == 1
    assert np.array_equal(parts.scores.argmax(0), parts.labels)
    assert np.allclose(parts.scores.sum(0), 1, atol=1e-5)


def test_each_object_of_a_mask_is_divided_by_itself(encoder, image):
    objects = np.zeros(SIZE, np.int32)
    objects[5:50, 5:30], objects[10:55, 40:75] = 3, 7
    parts = partzoo.discover_parts(image, 2, model=encoder, mask=objects)
    assert parts.k == 4 and len(parts.descriptors) == 4
    assert set(np.unique(parts.labels[objects == 3])) == {1, 2} and set(np.unique(parts.labels[objects == 7])) == {3, 4}
    assert np.array_equal(parts.scores.argmax(0), parts.labels)
    alone = partzoo.discover_parts(image, 2, model=encoder, mask=objects == 7)
    assert np.array_equal(alone.labels[objects == 7] + 2, parts.labels[objects == 7])


def test_many_images_take_one_mask_each(encoder, image):
    images, masks = [image, image[:, ::-1].copy()], [left_half(), None]
    found = partzoo.discover_parts(images, 3, model=encoder, mask=masks, background=None)
    assert np.array_equal(found[0].labels > 0, left_half()) and (found[1].labels > 0).all()
    vocabulary = partzoo.fit_parts(images, 3, model=encoder, mask=masks, background=None)
    again = partzoo.discover_parts(image, model=encoder, vocabulary=vocabulary, mask=left_half())
    assert np.array_equal(again.labels, found[0].labels)
    with pytest.raises(UsageError, match="a sequence of 2 masks"):
        partzoo.discover_parts(images, 3, model=encoder, mask=left_half())


def test_a_part_model_s_parts_are_confined_to_the_mask(image):
    model = partzoo.load("partformer-resnet18", pretrained=False, device="cpu", dtype="float32", parts=4, size=64)
    parts = partzoo.discover_parts(image, model=model, mask=(10, 10, 50, 40))
    inside = np.zeros(SIZE, bool)
    inside[10:40, 10:50] = True
    assert np.array_equal(parts.labels > 0, inside) and parts.k == 4


def test_objects_of_one_image_share_one_run_of_the_model(image, monkeypatch):
    model, runs = partzoo.load("toy-vit", device="cpu"), []
    inner = model.forward_intermediates
    monkeypatch.setattr(model, "forward_intermediates", lambda *given: runs.append(1) or inner(*given))
    objects = np.arange(SIZE[1])[None].repeat(SIZE[0], 0) // 20
    assert partzoo.discover_parts(image, 2, model=model, mask=objects).k == 6 and len(runs) == 1


def test_a_half_is_foreground_and_less_is_not():
    def opened(values, kind):
        return open_mask(np.array([values], kind), (1, len(values))).tolist()[0]

    assert opened([0.0, 0.49, 0.5, 1.0], np.float32) == [0, 0, 1, 1]
    assert opened([0, 127, 128, 255], np.uint8) == [0, 0, 1, 1]
    assert opened([0, 127, 128, 254], np.uint8) == [0, 127, 128, 254]  # numbers of objects
    assert opened([0, 127, 128, 255], np.uint16) == [0, 127, 128, 255]


def test_one_image_is_fitted_within_its_mask(encoder, image):
    options = {"model": encoder, "background": None}
    inside = partzoo.fit_parts(image, 3, mask=left_half(), **options)
    alone = partzoo.discover_parts(image, 3, mask=left_half(), **options)
    assert np.array_equal(inside.centres.numpy(), alone.descriptors)
    assert not torch.equal(inside.centres, partzoo.fit_parts(image, 3, **options).centres)
