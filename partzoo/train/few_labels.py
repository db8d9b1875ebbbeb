"""Compare finetuned PART models with the same network trained from scratch, on few labels and several seeds.

Source: PART, section 5.3, table 4 (off-grid and on-grid pretraining) and tables 6 and 7 (the labelled baseline).
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch

from partzoo.errors import UsageError
from partzoo.evaluate.probes.held_out import top1
from partzoo.files import expand_user, reading
from partzoo.locks import locked
from partzoo.models.loading import build
from partzoo.models.part.classifier import SHARED, PartClassifier, classifier_of
from partzoo.models.registry import find
from partzoo.places import make_folder
from partzoo.system.device import Device
from partzoo.train.datasets import DataOptions, of_categories, of_each_class, read_images
from partzoo.train.experiment import keep_settings, read_rows, write_rows
from partzoo.train.loop import LoopOptions, fit
from partzoo.train.processes import alone
from partzoo.train.tasks.finetune import FinetuneTask, held_out, parent_of

FIELDS = ("parent", "per_class", "seed", "top1", "images", "steps")
TABLE = "few-labels.csv"


def few_labels(
    data: str | Path,
    parents: Mapping[str, str | Path | None],
    out: str | Path,
    *,
    per_class: Sequence[int] = (10,),
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 300,
    every: int = 1,
    options: DataOptions | None = None,
    task: Mapping[str, Any] | None = None,
    loop: Mapping[str, Any] | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    device: Device = None,
) -> list[dict[str, Any]]:
    """Finetune every parent with few labels, and measure all of them on the same held-out images.

    Each seed determines the labelled images, which are the same for every parent, and the random weights. The network
    that starts from random weights has the size of the first parent. Held-out images that cannot be read are skipped
    and named in warnings.

    Args:
        data: folder with classes and held-out images, see :func:`partzoo.train.datasets.read_images`.
        parents: dictionary from labels in the table to models, in any form that :func:`partzoo.load` accepts; None
            starts from random weights.
        out: folder of the table ``few-labels.csv`` and of each run. Rows that the table already has are not run again.
        per_class: numbers of labelled images of each class.
        seeds: random seeds of the training runs.
        steps: number of steps of each training run.
        every: use only every n-th class.
        options: options for reading the images.
        task: values of :class:`FinetuneTask`.
        loop: values of :class:`LoopOptions`.
        progress: function that is called with each new row.
        device: where the models are trained; see :func:`partzoo.train.loop.accelerator_on`.

    Returns:
        Rows with ``parent``, ``per_class``, ``seed``, ``top1`` in per cent, ``images`` (held-out ones) and ``steps``.

    Raises:
        UsageError: no parent is a model, the parents' image sizes differ, the data has no labels, ``out`` holds results
            of other settings, or another process writes it.
    """
    alone("This experiment", device)
    models = {label: parent_of(name) for label, name in parents.items() if name is not None}
    sides = {model.config.size for model in models.values()}
    if not models:
        raise UsageError("Every parent is None. Pass at least one model, which sets the size of the others.")
    if len(sides) != 1:
        raise UsageError(f"The parents take images of {sorted(sides)} pixels. Give parents of one size.")
    first, options = next(iter(models.values())), options or DataOptions()
    labelled = read_images(data, options, sides.pop())
    if labelled.labels is None:
        raise UsageError(f"data={data} has no labels. Give one subfolder per class.")
    if every > 1:
        options = replace(options, categories=tuple(labelled.classes[::every]))
        labelled = of_categories(labelled, options, data)
    unseen, out = held_out(data, options, labelled).usable(), expand_user(out)
    settings = {
        "data": str(data), "steps": steps, "every": every, "task": task or {}, "loop": loop or {},
        "reading": asdict(options), "parents": {label: str(name or "") for label, name in parents.items()},
    }  # fmt: skip
    make_folder(out)
    with locked(out):
        keep_settings(out, settings, growing=("parents",))
        rows = _read(out / TABLE)
        done = {(row["parent"], row["per_class"], row["seed"]) for row in rows}
        for count, seed in itertools.product(per_class, seeds):
            chosen = of_each_class(labelled, count, seed)
            for label in parents:
                if (label, count, seed) in done:
                    continue
                torch.manual_seed(seed)
                network = _network(models.get(label), first, labelled.classes)
                chosen_loop = LoopOptions(**({"steps": steps, "seed": seed, "clip_grad": 0.0} | dict(loop or {})))
                folder = out / f"{label}-{count}-{seed}"
                made = FinetuneTask(network, **dict(task or {}))
                state = fit(made, chosen, chosen_loop, folder, resume=True, progress=False, device=device)
                if not state.finished:
                    return rows
                figure = round(top1(made.model, unseen), 2)
                row = dict(zip(FIELDS, (label, count, seed, figure, len(unseen), state.step), strict=True))
                rows.append(row)
                write_rows(out / TABLE, FIELDS, rows)
                if progress:
                    progress(row)
    return rows


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compute mean and standard deviation over the seeds: ``parent``, ``per_class``, ``top1``, ``std``, ``seeds``."""
    groups: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        groups.setdefault((row["per_class"], row["parent"]), []).append(row["top1"])
    return [
        {
            "parent": label,
            "per_class": count,
            "top1": statistics.mean(values),
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "seeds": len(values),
        }
        for (count, label), values in groups.items()
    ]


def _network(part: Any, first: Any, classes: Sequence[str]) -> PartClassifier:
    config: dict[str, Any] = {"classes": len(classes), "names": tuple(classes)}
    if part is not None:
        return PartClassifier.from_part(part, **config)
    entry = find(classifier_of(first.architecture))
    sizes = {name: getattr(first.config, name) for name in (*SHARED, "size")}
    return cast(PartClassifier, build(entry, entry.configure(sizes | config)))


def _read(file: Path) -> list[dict[str, Any]]:
    kinds = (str, int, int, float, int, int)
    if not file.exists():
        return []
    with reading(file, UsageError, "is not a table of this experiment", "choose another out="):
        return [
            {name: kind(line[name]) for name, kind in zip(FIELDS, kinds, strict=True)}
            for line in read_rows(file, FIELDS)
        ]
