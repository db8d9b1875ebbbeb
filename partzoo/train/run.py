"""``partzoo train``: a method, an architecture, a folder of images and a budget become a run."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from partzoo.data.image_sets import Examples
from partzoo.errors import UsageError, require
from partzoo.files import write_aside
from partzoo.models.part.classifier import SHARED, PartClassifier, classifier_of
from partzoo.models.registry import Architecture, find
from partzoo.settings import check_tables, named, to_toml, types_of
from partzoo.train.datasets import DataOptions
from partzoo.train.growth.grow import grown
from partzoo.train.loop import LoopOptions, Progress, Task, fit, run_folder
from partzoo.train.tasks.classify import ClassifyTask
from partzoo.train.tasks.finetune import FinetuneTask, held_out, parent_of, write_top1
from partzoo.train.tasks.foreground import ForegroundTask
from partzoo.train.tasks.mpae import MpaeTask
from partzoo.train.tasks.objectness import train_objectness
from partzoo.train.tasks.part import PartTask
from partzoo.train.tasks.part_signals import PartSignalsTask
from partzoo.train.tasks.partformer import PartFormerTask
from partzoo.train.tasks.spatial import SpatialTask

METHODS: dict[str, type[Task] | None] = {
    "part": PartTask,
    "part-signals": PartSignalsTask,
    "partformer": PartFormerTask,
    "mpae": MpaeTask,
    "spatial": SpatialTask,
    "classify": ClassifyTask,
    "finetune": FinetuneTask,
    "foreground": ForegroundTask,
    "objectness": None,
}
DEFAULTS = {
    "part": "part-vitn8.tin",
    "part-signals": "part-vit1d.physionet",
    "partformer": "partformer-resnet18.faces-k8",
    "mpae": "mpae-patchresnet14.faces-k8",
    "spatial": "spatial-resnet8.tin",
    "classify": "patchresnet14.tin",
    "finetune": "part-classifier-vitt8.tin",
    "foreground": "foreground-lite0.masks",
    "objectness": "patchresnet14-fg.caltech101",
}
GROWN = ("part", "spatial")
RECIPE = "recipe.toml"
BUDGET = ("minutes", "steps", "epochs")
OF_RECORDS = ("name", "terms", "labels_used", "masks_used")  # of a recipe's data, which a run's may not be
NOT_SET = ("exclude", "limit", "progress")  # of objectness' parameters: the data's, and the screen's


@dataclass(frozen=True)
class Recipe:
    """A training's settings, as a file under ``partzoo/train/recipes`` or in a run's folder states them.

    Attributes:
        method: key of :data:`METHODS`, or ``"objectness"``.
        architecture: what is trained.
        parent: weights that training starts from.
        minutes, steps, epochs: the budget; one of them.
        config: values of the architecture's configuration.
        loop: values of :class:`LoopOptions`.
        task: values of the method's task.
        data: values of :class:`partzoo.train.datasets.DataOptions`, for signals of
            :class:`partzoo.train.windows.SignalOptions`.
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
        return Path(name).read_text(encoding="utf-8-sig")
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
    grow_from: str | None = None,
    parent: str | None = None,
    k: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    resume: bool = False,
    limit: int | None = None,
    threads: int | None = None,
    seed: int | None = None,
    progress: bool = True,
    task: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    reading: dict[str, Any] | None = None,
    **loop: Any,
) -> tuple[nn.Module, Progress]:
    """Train a model on a folder of images.

    The run's folder gets ``recipe.toml``, all settings as they were, from which the run can be repeated.

    Args:
        method: ``"part"``, ``"part-signals"`` (on recordings; see :mod:`partzoo.train.windows`), ``"partformer"``,
            ``"mpae"``, ``"spatial"``, ``"foreground"`` (images with masks; see
            :mod:`partzoo.train.masked_images`), ``"classify"`` and ``"finetune"`` (which need one subfolder per class),
            or ``"objectness"`` (a foreground head beside a trained encoder; see
            :mod:`partzoo.train.tasks.objectness`).
        data: the folder, as :func:`partzoo.train.datasets.read_images` reads it.
        out: folder of the run; ``model.safetensors`` in it is what :func:`partzoo.load` takes.
        recipe: settings by name or file; None is those of the run that is resumed, or the method's small one.
        model: architecture in place of the recipe's; for ``"objectness"``, the encoder in place of the recipe's parent.
        grow_from: for ``"part"`` and ``"spatial"``, a smaller trained model whose outputs the model starts with, in
            place of the recipe's parent; see :mod:`partzoo.train.growth.grow`. ``"none"`` starts from random weights.
        parent: for ``"finetune"``, the PART model whose encoder is finetuned, in place of the recipe's; ``"none"``
            trains from random weights. The run's folder also gets ``held-out.json``, the accuracy on held-out images.
        k: number of parts in place of the recipe's, of a model that learns parts.
        minutes, steps, epochs: the budget in place of the recipe's, over all pieces of a resumed run.
        resume: continue the run in ``out``.
        limit: use at most so many images.
        threads: CPU threads of torch.
        seed: of weights, order, sampling; 0 where no recipe says otherwise.
        progress: show a bar.
        task: values of the method's task in place of the recipe's, such as ``{"exchange": False}``.
        config: values of the architecture's configuration in place of the recipe's.
        reading: values of :class:`partzoo.train.datasets.DataOptions` in place of the recipe's.
        **loop: values of :class:`LoopOptions` in place of the recipe's; None keeps them.

    Returns:
        The trained model and where the run stands.

    Raises:
        UsageError: an argument is wrong, or the data does not serve the method.
    """
    if method not in METHODS:
        raise UsageError(f"There is no method {method!r}; those there are: {', '.join(METHODS)}.")
    if not isinstance(recipe, Recipe):
        own = Path(out, RECIPE)
        recipe = read_recipe(recipe or (own if resume and own.is_file() else DEFAULTS[method]))
    if recipe.method != method:
        raise UsageError(f"This recipe trains by {recipe.method!r}, not by {method!r}.")
    if parent is not None and method != "finetune":
        raise UsageError(f"parent={parent!r}: only 'finetune' starts from a model that is named so.")
    start, parent, name = grow_from or parent, recipe.parent, recipe.architecture
    if model is not None:
        parent, name = (model, name) if method == "objectness" else (parent, model)
    if grow_from is not None and method not in GROWN:
        raise UsageError(f"grow_from={grow_from!r}: only 'part' and 'spatial' grow a model from a smaller one.")
    parent = None if start == "none" else start or parent
    sizes, part = {}, None
    if method == "finetune" and parent:
        if model is not None:
            raise UsageError(f"model={model!r}: what is finetuned has the size of {parent}; or set parent to 'none'.")
        part = parent_of(parent)
        sizes = {each: getattr(part.config, each) for each in (*SHARED, "size")}
        name = classifier_of(part.architecture)
    entry = find(name)
    if METHODS[method] is not None and METHODS[method].CONFIG is not type(entry.config):
        raise UsageError(f"{entry.name} cannot be trained by {method!r}.")
    budget = {"minutes": minutes, "steps": steps, "epochs": epochs}
    if all(value is None for value in budget.values()):
        budget = {each: getattr(recipe, each) for each in BUDGET}
    given = {
        "task": recipe.task | (task or {}),
        "config": sizes | recipe.config | (config or {}) | ({} if k is None else {"parts": k}),
        "loop": recipe.loop | {key: value for key, value in (loop | {"seed": seed}).items() if value is not None},
        "data": recipe.data | (reading or {}) | ({} if limit is None else {"limit": limit}),
    }
    given = check_tables(method, given, setting_types(method, entry))
    options, read = LoopOptions(**budget, **given["loop"]), data_options(method)(**given["data"])
    if threads:
        torch.set_num_threads(threads)

    def record(config: dict[str, Any]) -> None:
        """What the run was, in its folder."""
        head = {"method": method, "architecture": entry.name, "parent": parent} | budget
        loop = {key: value for key, value in asdict(options).items() if key not in BUDGET}
        defaults = named(METHODS[method] or train_objectness)
        task = {name: value for name, value in defaults.items() if name not in NOT_SET} | given["task"]
        read_as = {key: value for key, value in asdict(read).items() if key not in OF_RECORDS} | {"name": str(data)}
        text = to_toml(head | {"config": config, "loop": loop, "task": task, "data": read_as})
        with write_aside(run_folder(out, fresh=not resume) / RECIPE) as file:
            file.write(text.encode())

    if method == "objectness":
        record(given["config"])
        limits = {"exclude": read.exclude, "limit": read.limit}
        return train_objectness(parent, data, out, options, **limits, **given["task"], progress=progress)
    kind = METHODS[method]
    images = kind.read(data, read, entry.configure(given["config"]), options.seed)
    if method in ("classify", "finetune"):
        if images.labels is None:
            raise UsageError(f"--data {data} has no labels: {method!r} needs one subfolder per class.")
        given["config"]["classes"] = len(images.classes)
    unseen = None
    if method == "finetune":
        given["config"]["names"] = tuple(images.classes)
        unseen = held_out(data, read, images)
    chosen = entry.configure(given["config"])
    _check_classes(chosen, images, data)
    torch.manual_seed(options.seed)
    if part is not None:
        network = PartClassifier.from_part(part, **asdict(chosen))
    else:
        network = grown(parent, entry, chosen) if method in GROWN and parent else kind.start(entry, chosen, parent)
    made = kind(network, **given["task"])
    record(asdict(chosen))
    state = fit(made, images, options, out, resume=resume, progress=progress)
    if unseen is not None and state.finished:
        processes = require("accelerate", "train").PartialState()
        if processes.is_main_process:
            write_top1(made.model, unseen, out)
        processes.wait_for_everyone()
    return made.model, state


def setting_types(method: str, entry: Architecture) -> dict[str, dict[str, Any]]:
    """Names and types of all that can be set in a training of an architecture, by the recipe's table."""
    kinds = types_of(METHODS[method] or train_objectness)
    task = {name: kind for name, kind in kinds.items() if name not in NOT_SET}
    loop = {name: kind for name, kind in types_of(LoopOptions).items() if name not in BUDGET}
    data = types_of(data_options(method))
    return {"task": task, "config": types_of(type(entry.config)), "loop": loop, "data": data}


def data_options(method: str) -> type:
    """The dataclass of how a method's data is read."""
    return DataOptions if METHODS[method] is None else METHODS[method].DATA


def _check_classes(config: Any, images: Examples, data: str | Path) -> None:
    """A model with parts of each class needs to know every image's."""
    classes = getattr(config, "classes", 0)
    if classes > 1 and (images.labels is None or images.labels.max() >= classes):
        has = "no classes" if images.labels is None else f"{len(images.classes)} classes"
        raise UsageError(f"config.classes={classes}, but --data {data} has {has}: give that number, or 0.")
