"""Recipes: the settings of a training run, by name or in a TOML file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from partzoo.errors import UsageError
from partzoo.files import parse_toml, reading
from partzoo.settings import checked, types_of

BUDGET = ("minutes", "steps", "epochs")
FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run, as stated in a file of ``partzoo/train/recipes`` or of a run's folder.

    Attributes:
        method: name of the method, a key of :func:`partzoo.train.tasks.methods`.
        architecture: architecture to train.
        parent: model that training starts from, or None.
        minutes, steps, epochs: budget, given as one of the three.
        config: values of the architecture's configuration.
        loop: values of :class:`partzoo.train.loop.LoopOptions`.
        task: values of the method's task.
        data: values of the dataclass that controls how the method's data is read, such as
            :class:`partzoo.train.datasets.DataOptions`.
        bundled: whether a release puts the weights into the wheel, rather than under ``checkpoints/``.
        measured: whether ``partzoo eval --all`` measures the released weights, for their record.
        alias: short name of the released weights, for their record.
    """

    method: str
    architecture: str
    parent: str | None = None
    minutes: float | None = None
    steps: int | None = None
    epochs: float | None = None
    config: dict[str, Any] = field(default_factory=dict)
    loop: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    bundled: bool = False
    measured: bool = True
    alias: str = ""


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """Facts that a recipe states about its data, for the record of the released weights; training does not use them.

    Attributes:
        name: name of the data.
        terms: terms of the data's licence.
        labels_used, masks_used: whether training uses labels or masks, of this data or of a parent's.
    """

    name: str = ""
    terms: str = ""
    labels_used: bool = False
    masks_used: bool = False


def recipes() -> list[str]:
    """Return the names of the recipes that are part of partzoo."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def read_recipe(name: str | Path) -> Recipe:
    """Read a recipe by name, or from a ``.toml`` file.

    Raises:
        UsageError: the recipe does not exist, has an unknown key or a value of another type.
    """
    file = _file(name)
    with reading(file, UsageError, "cannot be read as a recipe", "correct the file"):
        recipe = Recipe(**parse_toml(file.read_text(encoding="utf-8-sig")))
        for key, kind in types_of(Recipe).items():
            checked(key, getattr(recipe, key), kind)
        return recipe


def _file(name: str | Path) -> Path:
    if str(name) in recipes():
        return FOLDER / f"{name}.toml"
    if Path(name).suffix == ".toml" and Path(name).exists():
        return Path(name)
    close = difflib.get_close_matches(str(name), recipes(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"Unknown recipe {str(name)!r}.{hint} The recipes are {', '.join(recipes())}.")
