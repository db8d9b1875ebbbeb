import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

import partzoo
from partzoo.errors import ShapeError
from partzoo.models.loading import build
from partzoo.models.registry import find


@pytest.fixture(scope="module")
def model():
    return partzoo.load("foreground-lite0", pretrained=False, device="cpu")


@pytest.mark.parametrize("size", [(64, 96), (33, 70), (1, 1)])
def test_probabilities_lie_on_half_the_resolution(model, size):
    found = model(torch.zeros(2, 3, *size))
    assert found.shape == (2, 1, -(-size[0] // 2), -(-size[1] // 2))
    assert 0 <= found.min() and found.max() <= 1


def test_logits_of_every_level_for_training(model):
    sides = [level.shape[-1] for level in model.logits(torch.zeros(1, 3, 64, 64))]
    assert sides == [32, 16, 8, 4, 2]


def test_a_mirrored_image_has_the_mirrored_foreground(model):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8)
    found = model.probability(pixels, 64)
    mirror = model.probability(np.ascontiguousarray(pixels[:, ::-1]), 64)
    assert found.shape == (16, 32)
    assert torch.allclose(found, mirror.flip(1), atol=1e-5)
    assert not torch.allclose(found, model.probability(pixels, 64, mirror=False), atol=1e-6)


def test_the_mirror_image_may_have_a_size_of_its_own(model):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8)
    two = build(find("foreground-lite0"), dataclasses.replace(model.config, image_size=64, mirror_size=128)).eval()
    two.load_state_dict(model.state_dict())
    found = two.probability(pixels)
    small = model.probability(pixels, 64, mirror=False)
    large = model.probability(np.ascontiguousarray(pixels[:, ::-1]), 128, mirror=False).flip(1)
    expected = (interpolate(small[None, None], large.shape, mode="bilinear")[0, 0] + large) / 2
    assert found.shape == large.shape and torch.allclose(found, expected, atol=0.02)


def test_what_is_no_batch_of_images_is_refused(model):
    with pytest.raises(ShapeError, match=r"\(B, 3, H, W\)"):
        model(torch.zeros(3, 64, 64))
