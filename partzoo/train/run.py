"""The training driver, which turns a method, an architecture, a folder of data and a budget into a trained model."""

from __future__ import annotations

import contextlib
import os
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from partzoo.data.image_sets import Examples
from partzoo.errors import UsageError
from partzoo.files import expand_user, write_if_changed
from partzoo.locks import locked
from partzoo.models.base import Model
from partzoo.models.registry import Architecture, find
from partzoo.places import check_apart
from partzoo.settings import TABLES, changed, check_tables, named, to_toml, types_of
from partzoo.system.device import Device
from partzoo.train.loop import CHECKPOINT, MODEL, LoopOptions, Progress, run_folder
from partzoo.train.processes import processes, together
from partzoo.train.recipe import BUDGET, DataRecord, Recipe, read_recipe
from partzoo.train.tasks import find_method, methods
from partzoo.train.tasks.base import Task

RECIPE = "recipe.toml"


@dataclass(frozen=True)
class Settings:
    """The settings of a run, checked against those that its method and architecture have.

    Attributes:
        kind: task of the method.
        entry: architecture to train.
        parent: model that training starts from, or None.
        task, config: values of the task and of the architecture's configuration.
        options: budget and optimizer.
        reading: options for reading the data, an instance of ``kind.DATA``.
    """

    kind: type[Task]
    entry: Architecture
    parent: str | None
    task: dict[str, Any]
    config: dict[str, Any]
    options: LoopOptions
    reading: Any


@together()
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
    device: Device = None,
    task: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    reading: dict[str, Any] | None = None,
    **loop: Any,
) -> tuple[Model, Progress]:
    """Train a model on a folder of images.

    The run's folder receives ``recipe.toml`` with all settings, from which the run can be repeated.

    Args:
        method: ``"part"``, ``"part-signals"`` (on recordings; see :mod:`partzoo.train.windows`), ``"partformer"``,
            ``"mpae"``, ``"spatial"``, ``"foreground"`` (images with masks; see
            :mod:`partzoo.train.masked_images`), ``"classify"`` and ``"finetune"`` (which need one subfolder per class),
            or ``"objectness"`` (a foreground head on a trained encoder; see
            :mod:`partzoo.train.tasks.objectness`).
        data: folder of the data, as the method's task reads it; for most, see
            :func:`partzoo.train.datasets.read_images`.
        out: folder of the run; :func:`partzoo.load` takes the ``model.safetensors`` in it.
        recipe: settings by name or file; None uses the recipe of the run to resume, or the method's default recipe.
        model: architecture, instead of the recipe's; for ``"objectness"``, the encoder, instead of the recipe's parent.
        grow_from: for ``"part"`` and ``"spatial"``, a smaller trained model whose outputs the model starts with,
            instead of the recipe's parent; see :mod:`partzoo.train.growth.grow`. ``"none"`` starts from random weights.
        parent: for ``"finetune"``, the PART model whose encoder is finetuned, instead of the recipe's; ``"none"``
            trains from random weights. The run's folder also receives ``held-out.json``, the held-out accuracy.
        k: number of parts, instead of the recipe's, for a model that learns parts.
        minutes, steps, epochs: budget, instead of the recipe's, over all pieces of a resumed run.
        resume: whether to continue the run in ``out``.
        limit: use at most this many images.
        threads: number of CPU threads of torch.
        seed: random seed of weights, order and sampling; the default is the recipe's, or 0.
        progress: whether to show a bar.
        device: where the model is trained; see :func:`partzoo.train.loop.accelerator_on`.
        task: values of the method's task that override the recipe's, such as ``{"exchange": False}``.
        config: values of the architecture's configuration that override the recipe's.
        reading: values of the task's ``DATA`` that override the recipe's.
        **loop: values of :class:`LoopOptions` that override the recipe's; None keeps the recipe's.

    Returns:
        The trained model, and the state of the run.

    Raises:
        UsageError: an argument is invalid, or the data does not suit the method.
        PartzooError: another process of the training run has ended.
    """
    shared = processes(device)
    kind = find_method(method)
    written = [expand_user(out) / name for name in (MODEL, CHECKPOINT, *(() if resume else (RECIPE,)))]
    check_apart(written, [each for each in (recipe, model, grow_from, parent) if isinstance(each, (str, Path))])
    recipe = _recipe(kind, recipe, expand_user(out), resume)
    _check_resumed(kind, model, expand_user(out), resume)
    given = {
        "task": task or {},
        "config": (config or {}) | _given(parts=k),
        "loop": _given(**loop, seed=seed),
        "data": (reading or {}) | _given(limit=limit),
    }
    budget: dict[str, Any] = {"minutes": minutes, "steps": steps, "epochs": epochs}
    starts = {"model": model, "grow_from": grow_from, "parent": parent}
    settings = _settings(kind, recipe, starts, budget, given)
    if threads is not None:
        if threads < 1:
            raise UsageError(f"threads={threads} must be at least 1.")
        torch.set_num_threads(threads)
    if shared.is_main_process and expand_user(out).is_dir():
        with locked(out):  # refuses a second writer before the data is read
            pass
    # The first process fills the caches that the others use, and reports for all.
    with shared.main_process_first(), _quiet(not shared.is_main_process):
        examples, chosen = _data(settings, data)
        made = _start(settings, chosen)
        # Everything that can refuse the data comes before the run's folder is made: no empty run is left behind.
        made.prepare(data, settings.reading, examples)
        folder = run_folder(out, fresh=not resume)
        text = _text(settings, asdict(made.model.config), data)
        if resume:
            _name_changes(folder / RECIPE, text)
    record = partial(write_if_changed, folder / RECIPE, text.encode())
    state = made.fit(examples, settings.options, out, resume=resume, progress=progress, record=record, device=device)
    if state.finished:
        _finish(made, out)
    return made.model, state


def setting_types(method: str, entry: Architecture) -> dict[str, dict[str, Any]]:
    """Return the names and types of all settings for training an architecture, by the recipe's tables."""
    kind = find_method(method)
    loop = {name: kind for name, kind in types_of(LoopOptions).items() if name not in BUDGET}
    return {"task": types_of(kind), "config": types_of(type(entry.config)), "loop": loop, "data": types_of(kind.DATA)}


def _recipe(kind: type[Task], recipe: str | Path | Recipe | None, out: Path, resume: bool) -> Recipe:
    """Return the recipe to train with: a named one, the recipe of the run to resume, or the method's default."""
    if not isinstance(recipe, Recipe):
        own = out / RECIPE
        recipe = read_recipe(recipe or (own if resume and own.exists() else kind.RECIPE))
    if recipe.method != kind.METHOD:
        raise UsageError(
            f"The recipe trains by {recipe.method!r}, not by {kind.METHOD!r}. Name another recipe or method."
        )
    return recipe


def _check_resumed(kind: type[Task], model: str | None, out: Path, resume: bool) -> None:
    """Refuse to continue a run with another architecture than its own."""
    if not resume or model is None or kind.START == "model" or not (out / RECIPE).exists():
        return
    own = read_recipe(out / RECIPE).architecture
    if find(model).name != own:
        raise UsageError(f"model={model!r}: the run in {out} trains {own}. Leave model out, or choose another folder.")


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _settings(
    kind: type[Task],
    recipe: Recipe,
    starts: dict[str, str | None],
    budget: dict[str, Any],
    given: dict[str, dict[str, Any]],
) -> Settings:
    """Override the recipe's settings with those that the caller gave, and check them.

    Args:
        kind: task of the method.
        recipe: recipe with the default settings.
        starts: the arguments ``model``, ``grow_from`` and ``parent`` of :func:`train`.
        budget: the arguments ``minutes``, ``steps`` and ``epochs`` of :func:`train`.
        given: settings that override the recipe's, by table.
    """
    entry, parent, inherited = _beginning(kind, recipe, starts)
    if not kind.trains(entry):
        raise UsageError(f"{entry.name} cannot be trained by {kind.METHOD!r}. Name another architecture or method.")
    # A budget replaces the recipe's as a whole: a caller's minutes and a recipe's epochs would be two budgets.
    if all(value is None for value in budget.values()):
        budget = {each: getattr(recipe, each) for each in BUDGET}
    tables = {table: getattr(recipe, table) | given[table] for table in TABLES}
    if entry.name != recipe.architecture or (inherited and parent != recipe.parent):
        tables["config"] = carried_over(recipe, entry, inherited, given["config"]) | given["config"]
    tables["config"] = inherited | tables["config"]
    tables = check_tables(kind.METHOD, tables, setting_types(kind.METHOD, entry))
    options, reading = LoopOptions(**budget, **tables["loop"]), kind.DATA(**tables["data"])
    return Settings(kind, entry, parent, tables["task"], tables["config"], options, reading)


OF_DATA = ("parts", "classes")  # values of a part model's configuration that do not depend on its encoder


def carried_over(
    recipe: Recipe, entry: Architecture, inherited: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """Return the recipe's values of the configuration that hold for another architecture or parent than its own.

    A run's recipe states a whole configuration. Of that, only values whose default is the same in both hold; others,
    such as the width, are the new architecture's or its parent's. A recipe that states less does so on purpose: all of
    its values hold, or the numbers of parts and classes alone if it names another encoder than the architecture's.

    Raises:
        UsageError: a value is that of neither architecture, and the caller gives none.
    """
    former, latter = asdict(find(recipe.architecture).config), asdict(entry.configure(inherited))
    if "encoder" in recipe.config and latter.get("encoder") not in (None, recipe.config["encoder"]):
        # Sizes, levels and the like suit the recipe's encoder, which the architecture replaces.
        return {name: value for name, value in recipe.config.items() if name in OF_DATA}
    if any(value is not None and name not in recipe.config for name, value in former.items()):
        return recipe.config
    own = {name for name, value in latter.items() if name not in former or former[name] != value} | inherited.keys()
    stated = {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.config.items()}
    for name in sorted((own & stated.keys()) - inherited.keys() - given.keys()):
        if stated[name] not in (former.get(name), latter[name]):
            raise UsageError(
                f"The recipe sets config.{name}={stated[name]!r} for {recipe.architecture}, but {entry.name} has "
                f"{latter[name]!r}. Set config.{name}, or name another recipe."
            )
    return {name: value for name, value in recipe.config.items() if name in latter.keys() - own}


def _beginning(
    kind: type[Task], recipe: Recipe, starts: dict[str, str | None]
) -> tuple[Architecture, str | None, dict[str, Any]]:
    """Return the architecture, the model that training starts from, and the values that this model dictates."""
    for option in ("grow_from", "parent"):
        if starts[option] is not None and option != kind.START:
            takers = " and ".join(repr(name) for name, each in methods().items() if each.START == option)
            raise UsageError(f"{option}={starts[option]!r} is an option of {takers} only. Leave it out.")
    parent = starts.get(kind.START) or recipe.parent
    if parent == "none":
        parent = None
    architecture = None if kind.START == "model" else starts["model"]
    inherited = kind.inherit(parent) if parent else None
    if inherited is None:
        return find(architecture or recipe.architecture), parent, {}
    if architecture is not None:
        raise UsageError(
            f"model={architecture!r}: the parent {parent} determines the size. Leave model out, or set parent to "
            "'none'."
        )
    return find(inherited[0]), parent, inherited[1]


def _data(settings: Settings, folder: str | Path) -> tuple[Examples, Any]:
    """Read the training data; return it with the model's configuration, which may depend on it."""
    kind, entry = settings.kind, settings.entry
    examples = kind.read(folder, settings.reading, entry.configure(settings.config), settings.options.seed)
    if kind.NEEDS_LABELS and examples.labels is None:
        raise UsageError(f"data={folder} has no labels: {kind.METHOD!r} needs one subfolder per class.")
    config = entry.configure(settings.config | kind.config_from(examples))
    # Only models with parts for each class look them up by the image's label; other models with classes do not.
    classes = config.classes if hasattr(config, "parts") else 0
    if classes > 1 and (examples.labels is None or examples.labels.max() >= classes):
        has = "no classes" if examples.labels is None else f"{len(examples.classes)} classes"
        raise UsageError(f"config.classes={classes}, but data={folder} has {has}. Set config.classes to that, or 0.")
    return examples, config


def _start(settings: Settings, config: Any) -> Task:
    """Make the task, and its model with the weights that training starts with."""
    # From here on, weights are drawn from torch's global generator. Any other draw in between would change the model
    # that a seed yields.
    torch.manual_seed(settings.options.seed)
    return settings.kind(settings.kind.start(settings.entry, config, settings.parent), **settings.task)


def _text(settings: Settings, config: dict[str, Any], data: str | Path) -> str:
    """Return the text of the run's recipe, from which a stopped run can be continued."""
    options, reading = asdict(settings.options), asdict(settings.reading)
    recorded = types_of(DataRecord)
    head = {"method": settings.kind.METHOD, "architecture": settings.entry.name, "parent": settings.parent}
    tables = {
        "config": config,
        "loop": {name: value for name, value in options.items() if name not in BUDGET},
        "task": named(settings.kind) | settings.task,
        # The recipe's statements about its data, for a release's record, may not be true of this run's data.
        "data": {name: value for name, value in reading.items() if name not in recorded} | {"name": str(data)},
    }
    return to_toml(head | {name: options[name] for name in BUDGET} | tables)


def _name_changes(file: Path, text: str) -> None:
    """Warn of settings, other than the budget, in which a resumed run differs from its recipe so far."""
    if not file.is_file():
        return
    former, latter = asdict(read_recipe(file)), tomllib.loads(text)
    changes = [
        f"{table}.{name} was {before!r}, is {after!r}"
        for table in TABLES
        for name, before, after in sorted(changed(former[table], latter.get(table, {})), key=itemgetter(0))
    ]
    if changes:
        warnings.warn(f"The run goes on with other settings: {', '.join(changes)}.", stacklevel=2)


@contextlib.contextmanager
def _quiet(hidden: bool) -> Iterator[None]:
    """Return a context manager that suppresses printed output if ``hidden`` is true."""
    with contextlib.ExitStack() as stack:
        if hidden:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _finish(made: Task, out: str | Path) -> None:
    """Measure the model in one process; the others wait, since the process group ends when any process leaves."""
    shared = processes()
    if shared.is_main_process:
        made.finish(out)
    shared.wait_for_everyone()
