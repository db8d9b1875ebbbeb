"""``partzoo train --release NAME`` makes one released model, from training to its manifest record.

The steps are training with the recipe of that name, evaluation on held-out images, packing, the golden output, and the
manifest record.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from partzoo.data.folders import load_images
from partzoo.discovery.factory import make_finder
from partzoo.errors import UsageError, counted
from partzoo.evaluate import protocols
from partzoo.evaluate.foreground import foreground_figures
from partzoo.evaluate.foreground_measurement import model_scorer
from partzoo.evaluate.parts.figures import part_figures
from partzoo.evaluate.probes.held_out import knn, part_positions, top1
from partzoo.evaluate.protocols.base import PartProtocol
from partzoo.evaluate.protocols.faces68 import FACES68
from partzoo.models.base import Encoder, Model
from partzoo.models.foreground import ForegroundModel
from partzoo.models.loading import build
from partzoo.models.objectness import PatchResNetFg
from partzoo.models.part.model import Part
from partzoo.models.part_model import PartModel
from partzoo.models.registry import find
from partzoo.skipping import warn_of
from partzoo.system.device import Device
from partzoo.system.hardware import hardware
from partzoo.train.processes import alone
from partzoo.train.recipe import read_recipe
from partzoo.train.run import train
from partzoo.train.tasks import find_method
from partzoo.weights.manifest import NAME, WeightRecord, add_record, short_name
from partzoo.weights.release_files import golden, pack

HELD_OUT = 5000
HEADLINES = {  # maps a figure to its name in the README; the first that was measured is the headline
    "ecssd_iou": "foreground IoU on ECSSD, % ↑",
    "nmi5": "NMI of five face landmarks, % ↑",
    "nmi": "NMI on {data}, % ↑",
    "distance": "position error, patches ↓",
    "knn": "kNN accuracy on {data}, % ↑",
    "top1": "top-1 accuracy on {data}, % ↑",
}


def release(
    name: str,
    *,
    data: str | Path,
    out: str | Path,
    minutes: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    resume: bool = False,
    threads: int | None = None,
    held_out: int = HELD_OUT,
    progress: bool = True,
    device: Device = None,
    root: str | Path | None = None,
) -> WeightRecord:
    """Make released weights: train, evaluate, pack and record them.

    Args:
        name: ``architecture.tag``, which is also the recipe's name.
        data: folder of the training and held-out images.
        out: folder of the run; an interrupted run continues with ``resume``.
        minutes, steps, epochs: budget, instead of the recipe's.
        resume: whether to continue the run in ``out``.
        threads: number of CPU threads of torch.
        held_out: measure on at most this many held-out images; for kNN, two fifths of them are queries, and twice as
            many training images are candidates for neighbours.
        progress: whether to show a bar.
        device: where the model is trained; see :func:`partzoo.train.loop.accelerator_on`. It is measured on the CPU.
        root: clone of the repository that receives the files and the record; None uses the one that partzoo runs from.

    Returns:
        The record that was written to ``weights_manifest.json``.

    Raises:
        UsageError: the recipe is unknown, several processes run, or the run was stopped before its budget was spent.
    """
    alone("A release", device)
    recipe = read_recipe(name)
    budget: dict[str, Any] = {"minutes": minutes, "steps": steps, "epochs": epochs}
    if all(value is None for value in budget.values()):
        budget = {name: getattr(recipe, name) for name in budget}
    model, state = train(
        recipe.method, recipe=recipe, data=data, out=out, resume=resume, threads=threads, progress=progress,
        device=device, **budget,
    )  # fmt: skip
    if not state.finished:
        raise UsageError(f"{name} was stopped after {counted(state.images, 'image')}. Add resume=True to continue.")
    model = model.cpu().eval().requires_grad_(False)
    spent = next(f"--{unit} {value:g}" for unit, value in budget.items() if value is not None)
    fewer = f" --held-out {held_out}" if held_out != HELD_OUT else ""
    command = f"partzoo train --release {name} --data DIR {spent}{fewer}"
    found = metrics(model, data, state.loss, recipe.data.get("layout", "folder"), held_out)
    record = WeightRecord(
        name=name,
        architecture=model.architecture,
        config=asdict(model.config),
        files=pack(name, model, bundled=recipe.bundled, root=root),
        licence="Apache-2.0",
        terms=recipe.data["terms"],
        data=recipe.data["name"],
        labels_used=recipe.data.get("labels_used", False),
        recipe=name,
        command=command,
        seed=0,
        budget={
            "hardware": hardware(),
            "minutes": round(state.seconds / 60, 1),
            "images_seen": state.images,
            "steps": state.step,
        },
        metrics=tuple(metric | {"command": command} for metric in with_headline(found, recipe.data["name"])),
        golden=golden(model),
        parents=(recipe.parent,) if recipe.parent else (),
        masks_used=recipe.data.get("masks_used", False),
        method=find_method(recipe.method).TITLE,
        measured=recipe.measured,
        alias=recipe.alias,
    )
    add_record(record, root and Path(root) / NAME)
    return record


def with_headline(found: list[dict[str, Any]], data: str) -> list[dict[str, Any]]:
    """Add a ``headline`` to the figure that the README shows; a training loss never gets one.

    Args:
        found: what :func:`metrics` returns.
        data: name of the training data.
    """
    shown = next((name for name in HEADLINES if any(each["name"] == name for each in found)), None)
    if shown is None:
        return found
    title = HEADLINES[shown].format(data=short_name(data))
    return [each | ({"headline": title} if each["name"] == shown else {}) for each in found]


def metrics(
    model: Model, data: str | Path, loss: float, layout: str = "folder", limit: int = HELD_OUT
) -> list[dict[str, Any]]:
    """Evaluate a model on the held-out images of a folder, and return its figures with their floors.

    They are the position errors of PART, the accuracy of a classifier, and kNN accuracy, with the accuracy of random
    weights; for a foreground head, its last loss; for a part model, the figures of the protocol of its training data
    or, where there is no protocol, its last loss. Each has a ``name``, a ``value`` and a ``protocol``.
    """
    if isinstance(model, PartModel):
        measured = _protocol(model, data, layout)
        if measured is None:
            return [{"name": "loss", "value": round(loss, 4), "protocol": "the last logged step, training images"}]
        runs, images = part_figures(make_finder(model), measured, data, k=[None], seeds=[0], pass_over=warn_of)
        which = f"{images} images of the {measured.report} split"
        protocol = f"{measured.name}, K = {runs[0]['k']}, {which}, per cent"
        found = runs[0]["metrics"].items()
        return [{"name": name, "value": round(value, 2), "protocol": protocol} for name, value in found]
    if isinstance(model, ForegroundModel):
        return foreground_metrics(model, data, loss)
    if isinstance(model, PatchResNetFg):
        protocol = "mean binary cross-entropy against the teacher, last 100 steps, training cells"
        return [{"name": "loss", "value": round(loss, 4), "protocol": protocol}]
    side, found = model.preprocess.size, []
    held_out = load_images(data, "val", side=side, limit=limit).usable()
    if isinstance(model, Part):
        protocol = f"all ordered pairs of off-grid patches, {len(held_out)} held-out images, in patches"
        errors = part_positions(model, held_out)
        found = [{"name": name, "value": round(value, 4), "protocol": protocol} for name, value in errors.items()]
    elif hasattr(model, "classify"):
        protocol = f"own classifier, {len(held_out)} held-out images, per cent"
        found = [{"name": "top1", "value": round(top1(cast(Encoder, model), held_out), 2), "protocol": protocol}]
    bank = load_images(data, side=side, limit=2 * limit).usable()
    if held_out.labels is None or bank.labels is None:
        return found
    queries = load_images(data, "val", side=side, limit=2 * limit // 5).usable()
    torch.manual_seed(0)
    untrained = build(find(model.architecture), model.config).eval().requires_grad_(False)
    protocol = f"20 nearest of {len(bank)} training images, {len(queries)} held-out ones, mean patch token, per cent"
    for name, encoder in (("knn", model), ("knn_random_weights", untrained)):
        value = round(knn(cast(Encoder, encoder), bank, queries), 2)
        found.append({"name": name, "value": value, "protocol": protocol})
    return found


def foreground_metrics(model: ForegroundModel, data: str | Path, loss: float) -> list[dict[str, Any]]:
    """Evaluate a foreground model, with refinement, under the foreground protocols whose images the folder holds."""
    scorer = model_scorer(model)
    found = [{"name": "loss", "value": round(loss, 4), "protocol": "the last logged step, training images"}]
    for name in ("ecssd", "pascal-s", "horses"):
        rules = protocols.get(name)
        try:
            runs, images = foreground_figures(scorer, rules, data, pass_over=warn_of)
        except UsageError:
            continue
        which = f"{name}, {images} images of the {rules.split} split, per cent"
        figures = runs[0]["metrics"]
        found += [
            {"name": f"{name.replace('-', '_')}_{figure}", "value": round(figures[figure], 2), "protocol": which}
            for figure in ("iou", "accuracy", "max_f")
        ]
    return found


def _protocol(model: Model, data: str | Path, layout: str) -> PartProtocol | None:
    """Return the protocol that measures parts on the data that a model was trained on."""
    if layout == "folder":
        return FACES68 if Path(data, "report.npz").is_file() else None
    own = f"{layout}-{find(model.architecture).family}"
    return protocols.get(own if own in protocols.names() else layout)
