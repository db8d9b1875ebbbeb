"""``partzoo train``: a method, an architecture, a folder of pictures and a budget become a run."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from partzoo.errors import UsageError
from partzoo.loading import build
from partzoo.registry import find
from partzoo.train.classify import ClassifyTask
from partzoo.train.data import load_pictures
from partzoo.train.loop import LoopOptions, Progress, Task, fit
from partzoo.train.mpae import MpaeTask
from partzoo.train.objectness import train_objectness
from partzoo.train.part import PartTask
from partzoo.train.partformer import PartFormerTask
from partzoo.train.spatial import SpatialTask

METHODS: dict[str, type[Task] | None] = {
    "part": PartTask,
    "partformer": PartFormerTask,
    "mpae": MpaeTask,
    "spatial": SpatialTask,
    "classify": ClassifyTask,
    "objectness": None,
}
DEFAULTS = {
    "part": "part-vitt8.tin",
    "partformer": "partformer-resnet18.faces-k8",
    "mpae": "mpae-patchresnet14.faces-k8",
    "spatial": "spatial-resnet32.tin",
    "classify": "patchresnet14.tin",
    "objectness": "patchresnet14-fg.caltech101",
}


@dataclass(frozen=True)
class Recipe:
    """A training's settings, as a file under ``partzoo/train/recipes`` states them.

    Attributes:
        method: key of :data:`METHODS`, or ``"objectness"``.
        architecture: what is trained.
        parent: weights that training starts from.
        minutes, steps: the budget; one of them.
        config: values of the architecture's configuration.
        loop: values of :class:`LoopOptions`.
        task: values of the method's task.
        data: what a release's record says of its data.
    """

    method: str
    architecture: str
    parent: str | None = None
    minutes: float | None = None
    steps: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    loop: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


def recipes() -> list[str]:
    """Names of the recipes that come with partzoo."""
    return sorted(
        file.name.removesuffix(".toml")
        for file in files("partzoo.train").joinpath("recipes").iterdir()
        if file.name.endswith(".toml")
    )


def read_recipe(name: str | Path) -> Recipe:
    """A recipe by name, or from a ``.toml`` file.

    Raises:
        UsageError: no such recipe, or it has a key that recipes do not have.
    """
    text = _recipe_text(name)
    try:
        return Recipe(**tomllib.loads(text))
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise UsageError(f"The recipe {name} cannot be read: {error}.") from error


def _recipe_text(name: str | Path) -> str:
    if str(name) in recipes():
        return files("partzoo.train").joinpath("recipes", f"{name}.toml").read_text()
    if Path(name).suffix == ".toml" and Path(name).is_file():
        return Path(name).read_text()
    close = difflib.get_close_matches(str(name), recipes(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"There is no recipe {str(name)!r}.{hint} Those that come with partzoo: {', '.join(recipes())}.")


def train(
    method: str,
    *,
    data: str | Path,
    out: str | Path,
    recipe: str | Path | Recipe | None = None,
    model: str | None = None,
    k: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    limit: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    progress: bool = True,
    **loop: Any,
) -> tuple[nn.Module, Progress]:
    """Train a model on a folder of pictures.

    Args:
        method: ``"part"``, ``"partformer"``, ``"mpae"``, ``"spatial"``, ``"classify"`` (which needs one subfolder per
            class), or ``"objectness"`` (a foreground head beside a trained encoder; see
            :mod:`partzoo.train.objectness`).
        data: the folder, as :func:`partzoo.train.data.load_pictures` reads it.
        out: folder of the run; ``model.safetensors`` in it is what :func:`partzoo.load` takes.
        recipe: settings by name or file; None is the method's small one.
        model: architecture in place of the recipe's; for ``"objectness"``, the encoder in place of the recipe's parent.
        k: number of parts in place of the recipe's, of a model that learns parts.
        minutes, steps: the budget in place of the recipe's, over all pieces of a resumed run.
        resume: continue the run in ``out``.
        limit: use at most so many pictures.
        threads: CPU threads of torch.
        seed: of weights, order, sampling.
        progress: show a bar.
        **loop: values of :class:`LoopOptions` in place of the recipe's; None keeps them.

    Returns:
        The trained model and where the run stands.

    Raises:
        UsageError: an argument is wrong, or the data does not serve the method.
    """
    if method not in METHODS:
        raise UsageError(f"There is no method {method!r}; those there are: {', '.join(METHODS)}.")
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe or DEFAULTS[method])
    if recipe.method != method:
        raise UsageError(f"This recipe trains by {recipe.method!r}, not by {method!r}.")
    if minutes is None and steps is None:
        minutes, steps = recipe.minutes, recipe.steps
    chosen = recipe.loop | {key: value for key, value in loop.items() if value is not None}
    unknown = set(chosen) - {option.name for option in dataclasses.fields(LoopOptions)}
    if unknown:
        raise UsageError(f"There is no training option {', '.join(sorted(unknown))}.")
    options = LoopOptions(minutes=minutes, steps=steps, seed=seed, **chosen)
    if threads:
        torch.set_num_threads(threads)
    if method == "objectness":
        task = recipe.task | {"limit": limit or recipe.task.get("limit"), "progress": progress}
        return train_objectness(model or recipe.parent, data, out, options, **task)
    entry = find(model or recipe.architecture)
    if METHODS[method].CONFIG is not type(entry.config):
        raise UsageError(f"{entry.name} cannot be trained by {method!r}.")
    overrides = recipe.config | ({} if k is None else {"parts": k})
    pictures = load_pictures(data, side=entry.configure(overrides).size, limit=limit)
    if method == "classify":
        if pictures.labels is None:
            raise UsageError(f"--data {data} has no labels: 'classify' needs one subfolder per class.")
        overrides["classes"] = len(pictures.classes)
    torch.manual_seed(seed)
    task = METHODS[method](build(entry, entry.configure(overrides)), **recipe.task)
    state = fit(task, pictures, options, out, resume=resume, progress=progress)
    return task.model, state
