from pathlib import Path

import pytest
import torch

import partzoo
from partzoo.conversion.efficientnet import FIRST, LATER
from partzoo.errors import WeightsError
from partzoo.images.opening import open_image
from partzoo.images.preprocess import to_tensor
from partzoo.models.efficientnet import scaled_depths
from partzoo.models.registry import find

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
ENDS = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
# Classes of ImageNet-1k, one of which is among the five likeliest: cats; moped and scooter; grey and killer whale.
SEEN = {"cat": {281, 282, 285}, "motorbike": {665, 670}, "dolphin": {147, 148}}


def published(model):
    """Return a state dict in the form of the package from the registry."""
    depths = scaled_depths(model.config.depth)
    found = {}
    for name, value in model.state_dict().items():
        if not name.startswith("blocks."):
            part, _, rest = name.partition(".")
            found[f"{ENDS[part]}.{rest}"] = value
            continue
        _, stage, block, part, rest = name.split(".", 4)
        number = sum(depths[: int(stage)]) + int(block)
        names = {ours: theirs for theirs, ours in (LATER if number else FIRST).items()}
        found[f"_blocks.{number}.{names[part]}.{rest}"] = value
    return found


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"])
def test_every_tensor_comes_to_its_place(name, tmp_path):
    entry = find(name)
    model = entry.build(entry.config).eval()
    torch.save(published(model), tmp_path / "model.pth")
    found = partzoo.convert(tmp_path / "model.pth", dtype="float32", device="cpu")
    assert found.architecture == name
    for key, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


def test_another_depth_is_refused():
    entry = find("efficientnet-lite0")
    state = published(entry.build(entry.config))
    state = {name: value for name, value in state.items() if not name.startswith("_blocks.15.")}
    with pytest.raises(WeightsError, match="15 blocks"):
        partzoo.convert(state)


@pytest.mark.parametrize("image", sorted(SEEN))
def test_the_released_parent_knows_what_the_examples_show(image):
    model = partzoo.load("efficientnet-lite0.in1k", device="cpu", dtype="float32")
    x = to_tensor(open_image(EXAMPLES / f"{image}.jpg"), (224, 224), model.preprocess)[None]
    assert SEEN[image] & set(model.classify(x)[0].topk(5).indices.tolist())
