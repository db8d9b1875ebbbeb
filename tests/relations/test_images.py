from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import partzoo
from partzoo.errors import ImageError, UsageError
from partzoo.relations.images import ImageRelation, relate_images


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return partzoo.load("spatial-conv4", pretrained=False, dtype="float32")


def noise(seed, height=64, width=64):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_two_images_have_one_relation_which_is_the_model_s(model, tmp_path):
    a, b = noise(0), noise(1)
    Image.fromarray(a).save(tmp_path / "a.png")
    found = relate_images(tmp_path / "a.png", Image.fromarray(b), model=model)
    x, y = (model.preprocess.normalize(torch.from_numpy(each).permute(2, 0, 1)[None]) for each in (a, b))
    expected = model.relate_images(x, y)
    assert isinstance(found, ImageRelation) and 0 < found.same < 1
    assert found.same == pytest.approx(expected.same.item(), rel=1e-5)
    assert found.shift == pytest.approx(expected.shift[0].tolist(), rel=1e-4)
    assert found.distance == pytest.approx(np.hypot(*found.shift), rel=1e-5)


def test_many_images_are_related_pair_by_pair_or_to_one(model, monkeypatch):
    monkeypatch.setattr("partzoo.relations.images.BATCH", 2)
    many = [noise(seed, 50 + seed, 70) for seed in range(5)]
    pairs = relate_images(many, many[::-1], model=model)
    to_one = relate_images(many, many[0], model=model)
    assert len(pairs) == len(to_one) == 5
    for found, a, b in ((pairs[0], 0, 4), (pairs[3], 3, 1), (to_one[3], 3, 0)):
        alone = relate_images(many[a], many[b], model=model)
        assert (found.same, *found.shift) == pytest.approx((alone.same, *alone.shift), abs=1e-5)
    assert len(relate_images([many[0]], many[1], model=model)) == 1


def test_patches_of_an_additive_model_stand_small_on_empty_ground():
    torch.manual_seed(0)
    model = partzoo.load("spatial-conv4", pretrained=False, dtype="float32", additive=True)
    a, b = noise(0, 24, 24), noise(1, 24, 24)
    x = torch.zeros(2, 3, 64, 64)
    for canvas, patch in zip(x, (a, b), strict=True):
        canvas[:, 20:44, 20:44] = model.preprocess.normalize(torch.from_numpy(patch).permute(2, 0, 1)[None])[0]
    expected = model.relate_images(x[:1], x[1:])
    found = relate_images(a, b, model=model, patches=True)
    assert found.same == pytest.approx(expected.same.item(), rel=1e-5)
    assert found != relate_images(a, b, model=model)


def test_a_mirrored_part_of_an_image_is_most_like_its_own():
    files = sorted(Path(__file__).parents[2].joinpath("examples/images").glob("*.jpg"))
    images = [Image.open(file).convert("RGB") for file in files]
    assert len(images) == 6
    for number, image in enumerate(images):
        width, height = image.size
        view = ImageOps.mirror(image).crop((0, 0, 4 * width // 5, 4 * height // 5))
        same = [found.same for found in relate_images([view] * 6, images)]
        assert same.index(max(same)) == number and max(same) > 0.9


def test_training_makes_views_of_an_image_the_same(tmp_path):
    """Two plain colours are distinguished after a few steps on images of one colour each."""
    from partzoo.data.image_sets import ImageSet
    from partzoo.train.loop import LoopOptions, fit
    from partzoo.train.tasks.spatial import SpatialTask

    torch.manual_seed(0)
    model = partzoo.load("spatial-conv4", pretrained=False, dtype="float32", size=32, patch_size=12).requires_grad_()
    texture = torch.stack(
        [torch.from_numpy(noise(seed, 32, 32) // (1 + seed % 4)).permute(2, 0, 1) for seed in range(16)]
    )
    options = LoopOptions(steps=30, batch_size=16, lr=3e-3, weight_decay=0.0)
    fit(
        SpatialTask(model, views=4, patches=2),
        ImageSet.from_pixels(texture, None, []),
        options,
        tmp_path,
        progress=False,
    )
    images = [each.permute(1, 2, 0).numpy() for each in texture]
    same = relate_images(images, images, model=model)
    other = relate_images(images, images[2:] + images[:2], model=model)
    assert np.mean([each.same for each in same]) > np.mean([each.same for each in other]) + 0.2


def test_wrong_arguments_are_one_clear_error(model):
    with pytest.raises(UsageError, match="3 and 2 images do not form pairs"):
        relate_images([noise(0)] * 3, [noise(0)] * 2, model=model)
    with pytest.raises(UsageError, match="a model of Spatial Reasoning, not PatchResNet"):
        relate_images(noise(0), noise(1), model="patchresnet14.tin")
    with pytest.raises(ImageError, match="absent"):
        relate_images("absent.png", noise(1), model=model)
