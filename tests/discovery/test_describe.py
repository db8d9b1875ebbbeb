import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import partzoo
from partzoo.discovery.describe import View, angles, at_work, centred, cielab, cropped, position, within_frame
from partzoo.discovery.refine import resize
from partzoo.images.opening import OpenedImage


def test_cielab_of_known_colours():
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]).T[:, None]
    expected = torch.tensor([[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]).T[:, None]
    assert torch.allclose(cielab(rgb), expected, atol=0.05)


def test_a_frame_is_seen_and_a_plain_ground_is_none():
    random = torch.Generator().manual_seed(0)
    framed = torch.ones(3, 96, 128)
    framed[:, 10:90, 5:110] = torch.rand(3, 80, 105, generator=random) * 0.6
    assert within_frame(framed, 8) == (slice(16, 88), slice(8, 104))
    plain = torch.ones(3, 96, 128)
    plain[:, 20:60, 30:70] = 0.2
    assert within_frame(plain, 8) == (slice(0, 96), slice(0, 128))


def test_cropped_keeps_what_lies_within_the_frame():
    maps = [torch.arange(24 * 32.0).view(1, 24, 32), torch.rand(2, 12, 16)]
    found, colours = cropped(maps, torch.rand(3, 24, 32), (slice(16, 88), slice(8, 104)), (96, 128))
    assert torch.equal(found[0], maps[0][:, 4:22, 2:26]) and torch.equal(found[1], maps[1][:, 2:11, 1:13])
    assert colours.shape == (3, 9, 12)


@pytest.mark.parametrize("size", [(8, 8), (17, 300), (300, 17), (1, 1)])
def test_working_size_suits_model_and_cells(size):
    model = partzoo.load("toy-vit")
    pixels, batch = at_work(OpenedImage(np.zeros((*size, 3), np.uint8)), model, 64)
    assert pixels.shape[1:] == batch.shape[2:] and all(side % model.patch == 0 for side in pixels.shape[1:])


def test_angles_fall_with_distance():
    values = torch.tensor([[0.0, 10, 40]])[..., None]
    found = angles(values, 0.02)[..., 0].T
    cosines = found @ found[0]
    assert torch.allclose(found.norm(dim=1), torch.ones(3)) and cosines[0] > cosines[1] > cosines[2]


def test_places_move_and_grow_with_the_foreground():
    score = torch.zeros(40, 40)
    score[2:12, 2:12] = 1
    whole, small = position(torch.ones(40, 40)), position(score)
    assert torch.equal(position(torch.zeros(40, 40)), whole)
    step = [(p[:, 7, 7] - p[:, 7, 9]).norm() for p in (whole, small)]
    assert step[1] > 1.3 * step[0]


def test_features_are_centred_on_the_foreground():
    layer, score = torch.rand(5, 8, 8), torch.zeros(8, 8)
    score[:4] = 1
    found = centred(layer, score)
    mean = layer[:, :4].mean((1, 2))
    assert torch.allclose(found, normalize(layer - mean[:, None, None], dim=0), atol=1e-5)


def test_upsampling_similarities_equals_upsampling_features():
    random = torch.Generator().manual_seed(0)
    score = torch.ones(12, 16)
    layer = normalize(torch.randn(6, 6, 8, generator=random), dim=0)
    colour, place = angles(torch.rand(3, 12, 16, generator=random), 1.0), position(score)
    view = View(torch.zeros(3, 48, 64), (layer,), colour, place, score)
    weights = (0.5, 0.2, 0.3)
    centres = normalize(torch.randn(3, 6 + 6 + 4, generator=random), dim=1)
    blocks = [w**0.5 * resize(block, (12, 16)) for w, block in zip(weights, view.blocks, strict=True)]
    expected = torch.einsum("kd,dhw->khw", centres, torch.cat(blocks))
    assert torch.allclose(view.similarities(centres, weights), expected, atol=1e-5)


def test_samples_are_unit_descriptors_of_the_foreground():
    score = torch.zeros(12, 16)
    score[:6] = 1
    view = View(
        torch.zeros(3, 48, 64), (normalize(torch.randn(6, 6, 8), dim=0),),
        angles(torch.rand(3, 12, 16), 0.01), position(score), score,
    )  # fmt: skip
    found = view.sample(1000, 0, (0.5, 0.2, 0.3))
    assert found.shape == (3 * 8, 16) and torch.allclose(found.norm(dim=1), torch.ones(24), atol=1e-5)
    assert len(view.sample(10, 0, (0.5, 0.2, 0.3))) == 5
