import copy

import pytest
import torch
from torch import nn

import partzoo
from partzoo.models.folding import folded


def with_statistics(model):
    """Return the model with batch norms that are not the identity."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.1, generator=generator)
    return model


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1", "foreground-lite0"])
def test_a_folded_model_computes_the_same_without_batch_norms(name):
    model = with_statistics(partzoo.load(name, pretrained=False, device="cpu", dtype="float32"))
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    found = folded(copy.deepcopy(model))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in found.modules())
    with torch.inference_mode():
        expected, output = model(x), found(x)
    assert torch.allclose(output, expected, atol=1e-4 * expected.abs().max())


def test_other_models_stay_as_they_are():
    model = partzoo.load("patchresnet14", pretrained=False, device="cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert folded(model) is model
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
