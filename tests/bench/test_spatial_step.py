import numpy as np
import pytest
import torch
from PIL import Image

from partzoo.bench import spatial_step
from partzoo.models.spatial.model import SpatialConfig
from partzoo.models.spatial.pairs import relation_targets, shifted_pairs


@pytest.mark.parametrize("count", [2, 5])
def test_the_plain_pairs_are_those_of_training(count):
    generator = torch.Generator().manual_seed(0)
    views, patches = spatial_step.VIEWS, spatial_step.PATCHES
    features = torch.randn((views + patches) * count, 3, generator=generator)
    places = torch.rand(patches * count, 2, generator=generator)
    first, second, targets = spatial_step.plain_pairs(features, places, count)
    pairs = shifted_pairs(count, views, patches)
    assert torch.equal(first, features[pairs.first]) and torch.equal(second, features[pairs.second])
    torch.testing.assert_close(targets, relation_targets(pairs, places))


def test_the_plain_patches_are_where_they_say():
    config = SpatialConfig(size=32, patch_size=12, mean=(0.0,) * 3, std=(1.0,) * 3)
    made = spatial_step.PlainViews(config)
    made.colours = lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    ramp = np.linspace(0, 250, 32)
    image = Image.fromarray(np.stack(np.broadcast_arrays(ramp[:, None], ramp, 0.0), axis=2).astype(np.uint8))
    views, patches, places = made(image)
    assert len(views) == 4 and len(patches) == 2
    for patch, (top, left) in zip(patches, places, strict=True):
        found = patch[:2].mean((1, 2)) * 255 / 250 * 31
        centre = torch.tensor([top, left]) * config.unit * 32 + (12 - 1) / 2
        torch.testing.assert_close(found, centre, atol=0.35, rtol=0)
    (a, b), (c, d) = places
    assert max(abs(a - c), abs(b - d)) >= 0.5


def test_both_sides_train_the_same_network():
    config = SpatialConfig("conv4", 32, 12)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    pil = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in pixels]
    cpu = torch.device("cpu")
    for step in (spatial_step.plain_step(config, pil, cpu), spatial_step.our_step(config, pixels, cpu)):
        losses = [step() for _ in range(3)]
        assert all(0 < loss < 5 for loss in losses)


def test_the_profile_names_operators_and_shares(tmp_path):
    text = spatial_step.profile(tmp_path / "profile.txt", quick=True, steps=1, top=5)
    assert (tmp_path / "profile.txt").read_text() == text
    assert "Spatial training step" in text and "convolution" in text and "%" in text
