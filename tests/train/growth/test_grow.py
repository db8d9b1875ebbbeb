import dataclasses

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo
from PIL import Image

from partzoo.errors import UsageError
from partzoo.models.loading import build, load
from partzoo.models.part.model import Part, PartConfig
from partzoo.models.registry import find
from partzoo.train.growth.grow import _times, grow
from partzoo.train.tasks.part import PartTask
from partzoo.weights.tensors import write_weights

SMALL = PartConfig(dim=24, depth=3, heads=2, size=24)


def trained(config):
    """Make a model with no parameter at its initial value, including biases and norms."""
    torch.manual_seed(0)
    model = build(find("part-vitt8"), config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def larger(config, **changes):
    return grow(trained(config), find("part-vits8"), dataclasses.replace(config, **changes)).eval()


@pytest.mark.parametrize(
    "changes", [{"dim": 48, "heads": 4}, {"dim": 72, "heads": 6}, {"depth": 5}, {"dim": 48, "heads": 4, "depth": 7}]
)
@pytest.mark.parametrize(
    "kind",
    [{}, {"targets": 4}, {"projections": False}, {"relative_encoder": "pairwise-mlp"}, {"relative_encoder": "mlp"}],
)
def test_a_grown_model_has_the_outputs_of_the_small_one(changes, kind):
    config = dataclasses.replace(SMALL, **kind)
    small, large = trained(config), larger(config, **changes)
    patches = torch.randn(2, 9, 3, 8, 8)
    torch.testing.assert_close(large.relate(patches), small.relate(patches), atol=2e-5, rtol=1e-4)
    times = large.dim // small.dim
    tokens = small.encode_patches(patches).repeat(1, 1, times)
    torch.testing.assert_close(large.encode_patches(patches), tokens, atol=2e-5, rtol=1e-4)


def test_copies_diverge_from_the_first_step_on():
    torch.manual_seed(0)
    large = larger(SMALL, dim=48, heads=4)
    task = PartTask(large.train(), pairs=20)
    pixels = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8)
    task(pixels, None, 0.0, torch.Generator().manual_seed(0))["loss"].backward()
    first, second = large.blocks[1].mlp.fc1.weight.grad.chunk(2)
    assert (first - second).norm() > 0.1 * first.norm()


def test_copies_are_as_uneven_as_noise_says():
    spread = {}
    for noise in (0.0, 0.1, 1.0):
        small = trained(SMALL)
        large = grow(small, find("part-vits8"), dataclasses.replace(SMALL, dim=48, heads=4), noise=noise)
        first, second = large.blocks[1].mlp.fc1.weight.unflatten(1, (2, -1)).unbind(1)
        spread[noise] = (first - second).std() / small.blocks[1].mlp.fc1.weight.std()
    assert spread[0.0] == 0 and 0.05 < spread[0.1] < 0.2
    assert spread[1.0].item() == pytest.approx(10 * spread[0.1].item(), rel=0.1)


def test_new_blocks_learn():
    large = larger(SMALL, depth=6)
    task = PartTask(large.train(), pairs=20)
    pixels = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8)
    task(pixels, None, 0.0, torch.Generator().manual_seed(0))["loss"].backward()
    assert all(block.mlp.fc2.weight.grad.norm() > 0 for block in large.blocks)


def test_the_zoo_s_sizes_are_whole_multiples():
    for small, large in (("part-vitt8", "part-vits8"), ("part-vits8", "part-vitb8"), ("part-vitt8", "part-vitb8")):
        with torch.device("meta"):
            model = Part(find(small).config)
        assert _times(model, find(large), find(large).config) in (2, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 36, "heads": 3}, "same whole multiple"),
        ({"dim": 48}, "same whole multiple"),
        ({"depth": 2}, "depth no less"),
        ({"patch": 4, "size": 12}, "patch=4 instead of 8, size=12 instead of 24"),
        ({"relative_encoder": "mlp"}, "relative_encoder='mlp' instead of 'cross-attention'"),
    ],
)
def test_what_cannot_grow_is_named(changes, message):
    with pytest.raises(UsageError, match=message):
        larger(SMALL, **changes)


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp_path / f"images/{number}.png")
    return tmp_path / "images"


def test_training_starts_as_the_model_it_grows_from(images, tmp_path):
    small = trained(SMALL)
    write_weights(tmp_path / "small.safetensors", small.state_dict(), "part-vitt8", small.config)
    sizes = ["--set", "config.dim=48", "--set", "config.depth=4", "--set", "config.heads=4", "--set", "config.size=24"]
    run = ["--data", images, "--model", "part-vits8", "--steps", 1, "--batch-size", 2, "--lr", 1e-12, *sizes]
    ran = partzoo("train", "part", *run, "--grow-from", tmp_path / "small.safetensors", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    patches = torch.randn(1, 9, 3, 8, 8)
    found = load(tmp_path / "out" / "model.safetensors", device="cpu", dtype="float32")
    assert (found.dim, len(found.blocks)) == (48, 4)
    torch.testing.assert_close(found.relate(patches), small.relate(patches), atol=1e-4, rtol=1e-3)
    assert "small.safetensors" in (tmp_path / "out" / "recipe.toml").read_text()


def test_a_model_grows_only_from_its_own_method(images, tmp_path):
    run = ["--data", images, "--steps", 1, "-o", tmp_path / "out", "--grow-from"]
    ran = partzoo("train", "partformer", *run, "part-vitt8.tin")
    assert ran.code == 2 and "an option of 'part' and 'spatial' only" in ran.err
    ran = partzoo("train", "spatial", *run, "part-vitt8.tin")
    assert ran.code == 2 and "part-vitt8.tin, which is not a spatial model" in ran.err
    ran = partzoo("train", "part", *run, "patchresnet14.tin")
    assert ran.code == 2 and "patchresnet14.tin, which is not a part model" in ran.err
    ran = partzoo("train", "part", "--model", "part-vitb16", *run, "part-vitt8.tin")
    assert ran.code == 2 and "patch=16 instead of 8, size=224 instead of 64" in ran.err
