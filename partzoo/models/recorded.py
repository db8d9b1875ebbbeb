"""A record of the registered architectures, ``architectures.json``, which is read without importing any of them.

``python scripts/tables.py`` writes it. Where the package has other files than the record names, as when an architecture
was added, it is not used.
"""

from __future__ import annotations

import dataclasses
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import partzoo.models
from partzoo.files import read_json
from partzoo.models.registry import Architecture, architectures, find, split_tag

FILE = Path(__file__).with_name("architectures.json")


@dataclass(frozen=True)
class Recorded:
    """What is recorded of an architecture.

    Attributes:
        name, family, aliases, needs_weights, summary: as in :class:`partzoo.models.registry.Architecture`.
        config: values of the default configuration.
        parameters: number of parameters with it.
        preprocess: how its input is prepared.
        by_timm: whether timm builds it.
        converted: file from which ``partzoo convert`` makes its weights, where timm has none; else "".
    """

    name: str
    family: str
    aliases: tuple[str, ...]
    needs_weights: bool
    summary: str
    config: Mapping[str, Any]
    parameters: int
    preprocess: Mapping[str, Any]
    by_timm: bool
    converted: str


def modules() -> list[str]:
    """Return the names of the modules that may register architectures."""
    return sorted(module.name for module in pkgutil.walk_packages(partzoo.models.__path__, "partzoo.models."))


def recorded() -> dict[str, Recorded]:
    """Return what is recorded of all registered architectures by name, or what they are if the record is outdated."""
    content = read_json(FILE)
    if content["modules"] != modules():
        return described()
    found = (Recorded(**{**each, "aliases": tuple(each["aliases"])}) for each in content["architectures"])
    return {each.name: each for each in found}


def find_recorded(name: str) -> Recorded:
    """Return what is recorded of the architecture with this name, with or without a tag, or with this alias.

    Raises:
        UnknownModelError: the name is unknown; the message suggests the closest names.
    """
    known = recorded()
    plain, _ = split_tag(name)
    named = {alias: each.name for each in known.values() for alias in each.aliases}
    return known.get(named.get(plain, plain)) or describe(find(name))


def described() -> dict[str, Recorded]:
    """Describe all registered architectures, which are built on the meta device."""
    return {name: describe(entry) for name, entry in architectures().items()}


def describe(entry: Architecture) -> Recorded:
    """Describe an architecture."""
    from partzoo.models.loading import on_meta
    from partzoo.models.timm_encoder import CONVERTED, TimmConfig

    model = on_meta(entry, entry.config)
    return Recorded(
        name=entry.name,
        family=entry.family,
        aliases=tuple(entry.aliases),
        needs_weights=entry.needs_weights,
        summary=entry.summary,
        config=dataclasses.asdict(entry.config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        preprocess=dataclasses.asdict(model.preprocess),
        by_timm=isinstance(entry.config, TimmConfig),
        converted=CONVERTED.get(entry.name, ""),
    )


def to_json() -> dict[str, Any]:
    """Return the record as JSON values."""
    content = {"modules": modules(), "architectures": [dataclasses.asdict(each) for each in described().values()]}
    return json.loads(json.dumps(content))
