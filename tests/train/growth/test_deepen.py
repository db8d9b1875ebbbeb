import dataclasses

import pytest
import torch
from helpers.command_line import partzoo
from PIL import Image

from partzoo.errors import UsageError
from partzoo.models.loading import build, load
from partzoo.models.registry import find
from partzoo.models.spatial.model import SpatialConfig
from partzoo.train.growth.deepen import deepen, spread
from partzoo.train.tasks.spatial import SpatialTask
from partzoo.weights.tensors import write_weights

SMALL = SpatialConfig("resnet8", 32, 12)


def trained(config=SMALL):
    """Make a model with no parameter at its initial value, and with statistics of data."""
    torch.manual_seed(0)
    model = build(find("spatial-resnet8"), config).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for _ in range(3):
            features = model.features(torch.randn(8, 3, 32, 32))
            model.relation(features, features.flip(0))
    return model.eval()


@pytest.mark.parametrize("backbone", ["resnet8", "resnet32", "resnet56"])
def test_a_deeper_model_has_the_features_and_relations_of_the_small_one(backbone):
    small = trained()
    large = deepen(small, find(f"spatial-{backbone}"), dataclasses.replace(SMALL, backbone=backbone)).eval()
    x = torch.randn(4, 3, 32, 32)
    found, wanted = large.features(x), small.features(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(large.relation(found, found.flip(0)), small.relation(wanted, wanted.flip(0)))


def test_images_may_grow_too_and_places_keep_their_meaning():
    large = deepen(trained(), find("spatial-resnet32"), SpatialConfig("resnet32", 64, 24))
    assert large.config.size == 64 and large.config.unit == pytest.approx(SMALL.unit, rel=0.01)


def test_new_blocks_learn_from_the_first_steps_on():
    large = deepen(trained(), find("spatial-resnet32"), dataclasses.replace(SMALL, backbone="resnet32")).train()
    task = SpatialTask(large)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    for seed in range(2):
        optimizer.zero_grad()
        task(pixels, None, 0.0, torch.Generator().manual_seed(seed))["loss"].backward()
        optimizer.step()
    new = [block for block in large.backbone.layer2[1:] if block.bn2.weight.abs().max() < 0.5]
    assert len(new) == 4 and all(block.conv1.weight.grad.norm() > 0 for block in new)


def test_trained_blocks_lie_evenly_the_first_one_first():
    assert spread(1, 5) == [0] and spread(2, 5) == [0, 2] and spread(3, 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("spatial-conv4", {"backbone": "conv4"}, "Only a ResNet can grow"),
        ("spatial-resnet34", {"backbone": "resnet34"}, "Only a ResNet can grow"),
        ("spatial-resnet32", {"backbone": "resnet32", "additive": True}, "additive=True instead of False"),
    ],
)
def test_what_does_not_fit_is_reported(name, changes, told):
    with pytest.raises(UsageError, match=told):
        deepen(trained(), find(name), dataclasses.replace(SMALL, **changes))


def test_a_model_cannot_grow_shallower():
    deep = deepen(trained(), find("spatial-resnet32"), dataclasses.replace(SMALL, backbone="resnet32"))
    with pytest.raises(UsageError, match="Only a ResNet can grow"):
        deepen(deep, find("spatial-resnet8"), SMALL)


def test_training_starts_as_the_model_it_grows_from(tmp_path):
    small = trained()
    write_weights(tmp_path / "small.safetensors", small.state_dict(), "spatial-resnet8", small.config)
    for index in range(2):
        Image.new("RGB", (32, 32), (40, 120 * index, 200)).save(tmp_path / f"{index}.png")
    ran = partzoo(
        "train", "spatial", "--data", tmp_path, "--model", "spatial-resnet32", "--grow-from",
        tmp_path / "small.safetensors", "--steps", 1, "--batch-size", 2, "--lr", 1e-12, "--set", "config.size=32",
        "--set", "config.patch_size=12", "--set", "loop.optimizer=adam", "-o", tmp_path / "run",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = load(tmp_path / "run/model.safetensors", device="cpu", dtype="float32")
    kept, trained_kernel = found.backbone.layer2[0].conv2.weight, small.backbone.layer2[0].conv2.weight
    assert len(found.backbone.layer1) == 5
    torch.testing.assert_close(kept, trained_kernel, atol=1e-6, rtol=1e-6)
