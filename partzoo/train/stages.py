"""Classify sleep stages after finetuning PART on only a few subjects, to measure its sample efficiency.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 5.2 (table 3), sections 8.1 and 8.2.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from partzoo.errors import UsageError
from partzoo.evaluate.protocols.physionet import PHYSIONET_2018, STAGES, Night
from partzoo.files import expand_user, reading
from partzoo.locks import locked
from partzoo.models.loading import build, load
from partzoo.models.part.signal_model import SignalPart, SignalPartConfig
from partzoo.models.registry import find
from partzoo.places import make_folder
from partzoo.skipping import PassOver, warn_of
from partzoo.system.device import Device
from partzoo.train.experiment import keep_settings, read_rows, write_rows
from partzoo.train.loop import LoopOptions, fit
from partzoo.train.processes import alone
from partzoo.train.tasks.base import Task
from partzoo.train.windows import SignalOptions, labelled, read_nights

TABLE = "stages.csv"
COLUMNS = ("initial", "subjects", "seed", "kappa", "accuracy", "windows", "nights", "tested", "steps", "seconds")
SHARED = ("patch_embed.", "blocks.", "norm.")  # parameters that a finetuned model takes from the pretrained one


class StagesTask(Task):
    """A task that finetunes all weights to classify windows, with cross-entropy.

    Args:
        model: model with classes; see :func:`with_classes`.
        masked: share of the position embeddings that are left out at random in each window (PART, section 8.1).
    """

    CONFIG = SignalPartConfig
    DATA = SignalOptions
    UNDECAYED = ("class_token", "positions")

    def __init__(self, model: SignalPart, *, masked: float = 0.2) -> None:
        super().__init__()
        if not 0 <= masked < 1 or not model.config.classes:
            raise UsageError(
                f"masked={masked}, config.classes={model.config.classes}: masked is in 0..1, classes above 0."
            )
        self.model, self.masked = model, masked

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        logits = self.model.classify(pixels, masked=self.masked, generator=generator)
        assert labels is not None
        accuracy = (logits.argmax(1) == labels).float().mean()
        return {"loss": nn.functional.cross_entropy(logits.float(), labels), "accuracy": accuracy}


def with_classes(pretrained: SignalPart, classes: int, *, scratch: bool = False) -> SignalPart:
    """Make a model for finetuning: a pretrained encoder with new class token, position embeddings and classifier.

    Args:
        pretrained: pretrained model, which is not changed.
        classes: number of classes.
        scratch: whether to use only the configuration of the pretrained model.

    Source: PART, section 4 ("Transfer") and section 8.1.
    """
    config = dataclasses.replace(pretrained.config, classes=classes)
    model = cast(SignalPart, build(find(pretrained.architecture), config))
    if not scratch:
        kept = {name: value for name, value in pretrained.state_dict().items() if name.startswith(SHARED)}
        model.load_state_dict(model.state_dict() | kept)
    return model


def sample_efficiency(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    subjects: Sequence[int | None] = (10, 50, 100, None),
    seeds: int = 5,
    scratch: bool = True,
    test_subjects: int = PHYSIONET_2018.test_subjects,
    windows: int | None = None,
    masked: float = 0.2,
    cache: str | Path = "",
    progress: Callable[[dict[str, Any]], None] | None = None,
    bar: bool = False,
    pass_over: PassOver = warn_of,
    device: Device = None,
    **loop: Any,
) -> list[dict[str, Any]]:
    """Finetune on the sleep stages of a few subjects, and measure Cohen's kappa on held-out subjects.

    Each seed draws different subjects, and smaller sets of subjects are subsets of larger ones. Rows that ``out``
    already has are not trained again, so a stopped run continues.

    Args:
        model: pretrained model, in any form that :func:`partzoo.load` accepts.
        data: folder in the layout of PhysioNet's challenge of 2018.
        out: folder that receives ``stages.csv`` with a row per training run, and each trained model in a subfolder.
        subjects: numbers of subjects to finetune on; None means all but the test subjects.
        seeds: number of random seeds (0..seeds-1); each sets the choice of subjects, the initial weights and the order.
        scratch: whether to train a model of the same size from random weights as well, for equally long.
        test_subjects: number of held-out subjects, the same for all training runs; at most as many as in pretraining.
        windows: number of labelled windows of each night, drawn with the seed; None means all, as in the paper.
        masked: see :class:`StagesTask`.
        cache: folder for prepared nights; empty means ``signals`` in partzoo's cache folder.
        progress: function that is called with each new row.
        bar: whether to show a bar for each training run.
        pass_over: function that is called for each night that cannot be read, which is then skipped. Each row gives
            the number of nights used for training (``nights``) and for testing (``tested``).
        device: where the models are trained; see :func:`partzoo.train.loop.accelerator_on`.
        **loop: values of :class:`LoopOptions`; by default 100 epochs, batches of 128 and a rate of 5e-4.

    Returns:
        The rows of the table.

    Raises:
        UsageError: the model is not for signals, there are too few subjects, ``out`` holds results of other
            settings, or another process writes it.
    """
    alone("'partzoo stages'", device)
    pretrained = load(model, device="cpu", dtype="float32")
    if not isinstance(pretrained, SignalPart):
        raise UsageError(
            f"{model} is not a model of signals. Use one that was pretrained by 'partzoo train part-signals'."
        )
    if not any(loop.get(name) for name in ("steps", "minutes", "epochs")):
        loop["epochs"] = 100
    loop = {"batch_size": 128, "lr": 5e-4} | {name: value for name, value in loop.items() if value is not None}
    rules = dataclasses.replace(PHYSIONET_2018, train_subjects=1, test_subjects=test_subjects)
    everyone = sum(len(rules.records(data, split)) for split in ("train", "rest"))
    numbers = [everyone if number is None else number for number in subjects]
    if windows is not None and windows < 1:
        raise UsageError(f"windows={windows} must be at least 1.")
    if not numbers or min(numbers) < 1 or max(numbers) > everyone:
        raise UsageError(f"subjects={list(subjects)}: {data} has {everyone} besides the {test_subjects} held out.")
    out = expand_user(out)
    settings = {"model": str(model), "data": str(data), "test_subjects": test_subjects, "masked": masked} | loop
    make_folder(out)
    with locked(out):
        keep_settings(out, settings if windows is None else settings | {"windows": windows})
        rows: list[dict[str, Any]] = [*read_rows(out / TABLE, COLUMNS)]
        done = _done(rows, out / TABLE)
        test = read_nights(rules.records(data, "test"), cache, progress=bar, pass_over=pass_over)
        starts = ("pretrained", "scratch") if scratch else ("pretrained",)
        for number, seed, initial in itertools.product(numbers, range(seeds), starts):
            if (initial, number, seed) in done:
                continue
            chosen = dataclasses.replace(rules, train_subjects=number).records(data, "train", seed=seed)
            nights = read_nights(chosen, cache, progress=False, pass_over=pass_over)
            known = labelled(nights if windows is None else few_of_each(nights, windows, seed), STAGES)
            torch.manual_seed(seed)
            made = StagesTask(with_classes(pretrained, len(STAGES), scratch=initial == "scratch"), masked=masked)
            place = out / f"{initial}-{number}-{seed}"
            state = fit(made, known, LoopOptions(seed=seed, **loop), place, resume=True, progress=bar, device=device)
            if not state.finished:
                return rows
            scores = rules.score(made.model.stages, test)
            row = {"initial": initial, "subjects": number, "seed": seed} | scores
            row |= {"windows": len(known), "nights": len(nights), "tested": len(test)}
            row |= {"steps": state.step, "seconds": round(state.seconds, 1)}
            rows.append(row)
            write_rows(out / TABLE, COLUMNS, rows)
            if progress:
                progress(row)
    return rows


def _done(rows: Sequence[dict[str, Any]], file: Path) -> set[tuple[str, int, int]]:
    """Return start, number of subjects and seed of each row of a file, after a check of its numbers."""
    if not rows:
        return set()
    with reading(file, UsageError, "is not a table of this experiment", "choose another out="):
        means(rows)  # raises for a damaged row
        return {(row["initial"], int(row["subjects"]), int(row["seed"])) for row in rows}


def few_of_each(nights: Sequence[Night], windows: int, seed: int) -> list[Night]:
    """Select at most ``windows`` windows of each night, drawn at random from the seed and the night's name."""
    found = []
    for night in nights:
        rng = np.random.default_rng([seed, *night.record.encode()])
        kept = np.sort(rng.permutation(len(night.stages))[:windows])
        found.append(Night(night.record, night.windows[kept], night.stages[kept]))
    return found


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compute mean and sample standard deviation of kappa over the seeds, for each number of subjects and start."""
    groups: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        groups.setdefault((int(row["subjects"]), row["initial"]), []).append(float(row["kappa"]))
    found = []
    for (subjects, initial), values in sorted(groups.items()):
        kappas = torch.tensor(values, dtype=torch.float64)
        spread = kappas.std().item() if len(values) > 1 else None
        found.append(
            {
                "subjects": subjects,
                "initial": initial,
                "kappa": kappas.mean().item(),
                "std": spread,
                "seeds": len(values),
            }
        )
    return found
