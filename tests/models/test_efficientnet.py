import pytest
import torch

import partzoo
from partzoo.models.registry import find


@pytest.mark.parametrize("number", [0, 1, 2])
def test_equal_to_timm(number):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(f"tf_efficientnet_lite{number}").eval()
    entry = find(f"efficientnet-lite{number}")
    ours = entry.build(entry.config).eval()
    ours.load_state_dict(theirs.state_dict())
    assert ours.preprocess.size == theirs.pretrained_cfg["input_size"][1]
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours.classify(x), theirs(x))
        maps = theirs.forward_intermediates(x, intermediates_only=True)
        for found, expected in zip(ours.forward_intermediates(x), maps, strict=True):
            assert torch.equal(found, expected)


def test_maps_have_the_strides_that_it_names():
    model = partzoo.load("efficientnet-lite0", pretrained=False)
    maps = model.forward_intermediates(torch.zeros(1, 3, 70, 33))
    assert [tuple(each.shape[2:]) for each in maps] == [(48, 32), (24, 16), (12, 8), (6, 4), (3, 2)]
    assert [96 // each.shape[2] for each in maps] == list(model.reductions)
    assert model.encode(torch.zeros(1, 3, 64, 96)).maps().shape == (1, model.dim, 2, 3)


def test_without_classes_there_is_no_classifier():
    entry = find("efficientnet-lite0")
    names = entry.build(entry.configure({"classes": 0})).state_dict()
    assert not any(name.startswith(("conv_head", "bn2.", "classifier")) for name in names)
