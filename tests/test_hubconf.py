import importlib.util
import inspect
from pathlib import Path

import pytest
import torch

import partzoo
from partzoo.models.registry import aliases, find

CLONE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hubconf():
    spec = importlib.util.spec_from_file_location("hubconf", CLONE / "hubconf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public(module):
    return {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}


def test_every_architecture_and_alias_has_a_maker_and_nothing_else_is_callable(hubconf):
    names = [*partzoo.list_models(), *aliases()]
    assert set(public(hubconf)) == {name.replace("-", "_") for name in names}


def test_makers_are_documented_and_signed(hubconf):
    for name, maker in public(hubconf).items():
        assert maker.__name__ == name and maker.__module__ == "hubconf"
        assert len(inspect.getdoc(maker).splitlines()[0]) > 10
        assert list(inspect.signature(maker).parameters) == ["pretrained", "kwargs"]


def test_dependencies_are_import_names(hubconf):
    assert set(hubconf.dependencies) == {
        "torch",
        "timm",
        "huggingface_hub",
        "safetensors",
        "PIL",
        "numpy",
        "einops",
    }
    assert all(importlib.util.find_spec(name) for name in hubconf.dependencies)


def test_torch_hub_lists_and_loads_from_a_clone():
    model = torch.hub.load(str(CLONE), "toy_vit", source="local", device="cpu", dtype="float32", dim=32)
    assert model.config.dim == 32 and model.architecture == "toy-vit"


@pytest.mark.parametrize("name", [name for name in partzoo.list_models("part-*") if "vitb" not in name])
def test_random_models_come_without_weights(hubconf, name):
    model = getattr(hubconf, name.replace("-", "_"))(pretrained=False, device="cpu", dtype="float32")
    assert model.architecture == name and type(model.config) is type(find(name).config)


def test_an_alias_loads_through_torch_hub():
    model = torch.hub.load(str(CLONE), "part_vitt", source="local", pretrained=False, device="cpu", dtype="float32")
    assert model.architecture == find("part-vitt").name


def test_the_default_loads_trained_weights_or_reports_that_there_are_none():
    if "part-vitt8.tin" in partzoo.list_models(pretrained=True):
        assert torch.hub.load(str(CLONE), "part_vitt", source="local", device="cpu").architecture == "part-vitt8"
    else:
        with pytest.raises(partzoo.WeightsError, match="pretrained=False"):
            torch.hub.load(str(CLONE), "part_vitt", source="local", device="cpu")
