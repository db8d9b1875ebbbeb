"""Models that training has wrapped are saved and converted with the names of the unwrapped model."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

import partzoo
from partzoo import hub
from partzoo.errors import UsageError, WeightsError
from partzoo.models.wrappers import plain_names, unwrapped_model


@pytest.fixture(scope="module")
def model():
    return partzoo.load("toy-vit", device="cpu", dtype="float32")


@pytest.mark.parametrize(
    "wrap",
    [
        torch.compile, nn.DataParallel, lambda model: torch.compile(nn.DataParallel(model)),
        lambda model: nn.DataParallel(torch.compile(model)),
    ],
)  # fmt: skip
def test_a_wrapped_model_is_saved_as_itself(model, wrap, tmp_path):
    hub.save_pretrained(wrap(model), tmp_path / "m")
    again = partzoo.load(tmp_path / "m", device="cpu", dtype="float32")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_wrapped_part_of_a_model_is_saved_under_its_own_name(tmp_path):
    model = partzoo.load("toy-vit", device="cpu", dtype="float32")
    names = set(model.state_dict())
    model.blocks = torch.compile(model.blocks)
    assert set(model.state_dict()) != names
    hub.save_pretrained(model, tmp_path / "m")
    assert set(partzoo.load(tmp_path / "m", device="cpu").state_dict()) == names


def test_tensors_in_pieces_are_refused_with_the_way_out(tmp_path):
    model = partzoo.load("toy-vit", device="cpu", dtype="float32")
    layer = next(name for name, part in model.named_modules() if isinstance(part, nn.Linear))
    weight_norm(model.get_submodule(layer))
    with pytest.raises(UsageError, match=r"parametrizations.*remove_parametrizations"):
        hub.save_pretrained(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_model_that_could_not_be_loaded_is_not_saved(tmp_path):
    def toy():
        model = partzoo.load("toy-vit", device="cpu", dtype="float32")
        return model, next(part for part in model.modules() if isinstance(part, nn.Linear))

    pruned, layer = toy()
    prune.l1_unstructured(layer, "weight", amount=0.5)
    extended, _ = toy()
    extended.head = nn.Linear(2, 3)
    broken, layer = toy()
    layer.weight.data[0, 0] = float("nan")
    for model, message in (
        (pruned, "1 missing .*2 unexpected .*weight_orig.*prune.remove"),
        (extended, r"2 unexpected \(head.weight, head.bias\)"),
        (broken, "weight holds NaN or infinite"),
        (toy()[0].to("meta"), "on the meta device"),
    ):
        with pytest.raises(UsageError, match=message):
            hub.save_pretrained(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "name",
    [
        "module.a.b", "_orig_mod.a.b", "module._orig_mod.a.b", "a._orig_mod.b", "_fsdp_wrapped_module.a.b",
        "a._checkpoint_wrapped_module.b", "_forward_module.module.a.b",
            "_fsdp_wrapped_module.a._fsdp_wrapped_module._checkpoint_wrapped_module.b",
    ],
)  # fmt: skip
def test_names_of_wrappers_vanish_anywhere_in_a_name(name):
    assert plain_names({name: 1, "modules.c": 2}) == {"a.b": 1, "modules.c": 2}
    with pytest.raises(WeightsError, match=r"both named a\.b"):
        plain_names({name: 1, "a.b": 2})


def test_the_model_inside_is_found(model):
    assert unwrapped_model(torch.compile(nn.DataParallel(model))) is model and unwrapped_model(model) is model
