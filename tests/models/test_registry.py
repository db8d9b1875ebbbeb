import dataclasses

import pytest

from partzoo.errors import UnknownModelError, UsageError
from partzoo.models.loading import load
from partzoo.models.registry import Architecture, aliases, architectures, find, list_models, register, split_tag
from partzoo.weights.manifest import manifest
from partzoo.weights.store import available


def test_names_and_aliases_of_the_contract_are_registered():
    part = {"part-vitn8", "part-vitt8", "part-vits8", "part-vitb8", "part-vits4", "part-vits16", "part-vitb16"}
    assert part <= set(list_models())
    assert {"dino-vits8", "dinov2-vitb14reg", "mae-vitb16", "mocov3-vitb16"} <= set(list_models())
    assert aliases() == {f"part-vit{size}": f"part-vit{size}8" for size in "ntsb"}
    assert find("part-vitt").name == find("part-vitt8.tin").name == "part-vitt8"


def test_wildcards_and_families():
    assert list_models("part-vit?8") == ["part-vitb8", "part-vitn8", "part-vits8", "part-vitt8"]
    assert set(list_models(family="part")) == set(list_models("part-*"))
    assert list_models("nothing*") == []
    with pytest.raises(UsageError, match=r"Unknown family 'parts'; the families are encoder, "):
        list_models(family="parts")


PRETRAINED = list_models(pretrained=True)


def test_trained_weights_are_those_of_the_records_that_are_here_or_on_the_hub():
    records = manifest()
    seeded = {name for name, entry in architectures().items() if not entry.needs_weights}
    assert set(PRETRAINED) == {name for name, record in records.items() if available(record)} | seeded
    assert {name for name, record in records.items() if record.bundled} <= set(PRETRAINED)


@pytest.mark.parametrize(
    "name", [name for name in PRETRAINED if name not in manifest() or manifest()[name].hub is None]
)
def test_load_brings_what_is_listed_as_pretrained(name):
    model = load(name, device="cpu", dtype="float32", local_files_only=True)
    assert all(value.isfinite().all() for value in model.parameters())


def test_weights_that_are_superseded_name_their_successor():
    records = manifest()
    replaced = {name: record.superseded_by for name, record in records.items() if record.superseded_by}
    assert replaced and set(replaced.values()) <= set(records) - set(replaced)


def test_every_architecture_has_a_frozen_configuration_and_a_docstring():
    for name, entry in architectures().items():
        assert entry.summary.endswith("."), name
        assert dataclasses.is_dataclass(entry.config) and entry.config.__dataclass_params__.frozen, name


def test_unknown_names_name_the_closest():
    with pytest.raises(UnknownModelError, match=r"Unknown model 'part-vitbb'\. Did you mean 'part-vitb"):
        find("part-vitbb")
    with pytest.raises(UnknownModelError, match=r"timm has no model 'resnet1888'\. Did you mean 'timm/resnet"):
        find("timm/resnet1888")


def test_overrides_are_checked_against_the_configuration():
    entry = find("part-vitt8")
    assert entry.configure({"depth": 3}).depth == 3
    with pytest.raises(UsageError, match=r"part-vitt8 has no option 'dephth'; its options are dim, depth"):
        entry.configure({"dephth": 3})


def test_tags_split_off_the_architecture():
    assert split_tag("part-vitt8.tin") == ("part-vitt8", "tin")
    assert split_tag("part-vitt8") == ("part-vitt8", None)


def test_a_name_cannot_be_registered_twice():
    def part_vitt8(config):
        """Twice."""

    architectures()
    with pytest.raises(ValueError, match="part-vitt8 is registered twice"):
        register(family="part", config=None)(part_vitt8)
    assert isinstance(find("part-vitt8"), Architecture)
