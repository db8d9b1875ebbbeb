"""Measure whether pretraining with PART helps with few labels, on synthetic nights of sleep (docs/signals.md).

The script writes nights, pretrains a small model on those that are not held out, finetunes it and a randomly
initialized one, and classifies the frozen features of both:

    python experiments/signals.py -o runs/signals

With --tiny, everything is so small that the run ends in a minute and the results are meaningless.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from partzoo.cli.command import table
from partzoo.evaluate.metrics import Contingency
from partzoo.evaluate.probes.linear import logistic
from partzoo.evaluate.protocols.physionet import PHYSIONET_2018, STAGES
from partzoo.models.loading import load
from partzoo.models.part.signal_model import SignalPart
from partzoo.signals.synthetic import write_nights
from partzoo.train.run import train
from partzoo.train.stages import few_of_each, means, sample_efficiency, with_classes
from partzoo.train.windows import labelled, read_nights

LABELLED = 5  # number of labelled windows of each night
PENALTY = 10.0  # factor of the squared weights of the classifier of frozen features, beside the sum over windows
SMALL = {"dim": 64, "depth": 2, "heads": 4, "relative_encoder": "pairwise-mlp"}


@click.command(help=__doc__)
@click.option("-o", "--out", default="runs/signals", show_default=True, type=click.Path(path_type=Path))
@click.option("--pretraining", default=3500, show_default=True, help="Steps of pretraining.")
@click.option("--steps", default=150, show_default=True, help="Steps of each finetuning.")
@click.option("--seeds", default=5, show_default=True)
@click.option("--tiny", is_flag=True, help="Make a quick run that only shows that everything works.")
@click.option("--threads", default=1, show_default=True)
def main(out: Path, pretraining: int, steps: int, seeds: int, tiny: bool, threads: int) -> None:
    torch.set_num_threads(threads)
    train_sleepers, test_sleepers, windows, subjects = 100, 40, 40, (10, 50, None)
    if tiny:
        train_sleepers, test_sleepers, windows, subjects = 4, 2, 8, (2, None)
        pretraining, steps, seeds = 20, 5, 1
    nights, cache = out / "nights", str(out / "cache")
    if len(list(nights.glob("training/*/*.arousal"))) < train_sleepers + test_sleepers:
        write_nights(nights, train_sleepers + test_sleepers, windows=windows)
    train(
        "part-signals",
        data=nights,
        out=out / "pretrained",
        steps=pretraining,
        batch_size=32,
        optimizer="muon",
        lr=3e-3,
        betas=(0.9, 0.95),
        threads=threads,
        resume=True,
        config=SMALL,
        task={"pairs": 400},
        reading={"held_out": test_sleepers, "cache": cache},
    )
    rows = sample_efficiency(
        out / "pretrained" / "model.safetensors",
        nights,
        out / "stages",
        subjects=subjects,
        seeds=seeds,
        test_subjects=test_sleepers,
        windows=LABELLED,
        cache=cache,
        steps=steps,
        batch_size=32,
        lr=1e-3,
        progress=lambda row: print(row, flush=True),
    )
    frozen = read_out(out / "pretrained" / "model.safetensors", nights, cache, subjects, seeds, test_sleepers)
    with open(out / "stages" / "frozen.csv", "w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(frozen[0]))
        writer.writeheader()
        writer.writerows(frozen)
    for name, found in (("finetuned", rows), ("frozen", frozen)):
        print(name)
        averages = means(found)
        shown = [[f"{value:.3f}" if isinstance(value, float) else value for value in row.values()] for row in averages]
        table(shown, list(averages[0]))


def read_out(
    file: Path, data: Path, cache: str, subjects: tuple[int | None, ...], seeds: int, test_sleepers: int
) -> list[dict[str, Any]]:
    """Compute Cohen's kappa of logistic regressions on frozen features of the windows from ``sample_efficiency``."""
    pretrained = load(file, device="cpu", dtype="float32")
    rules = replace(PHYSIONET_2018, test_subjects=test_sleepers, train_subjects=1)
    test = read_nights(rules.records(data, "test"), cache, progress=False)
    everyone = sum(len(rules.records(data, split)) for split in ("train", "rest"))
    truth, rows = np.concatenate([night.stages for night in test]), []
    for seed in range(seeds):
        torch.manual_seed(seed)
        for initial, model in (("pretrained", pretrained), ("random", with_classes(pretrained, 0, scratch=True))):
            model.eval()
            judged = torch.cat([features(model, night.windows) for night in test])
            for number in (everyone if each is None else each for each in subjects):
                chosen = replace(rules, train_subjects=number).records(data, "train", seed=seed)
                few = labelled(few_of_each(read_nights(chosen, cache, progress=False), LABELLED, seed), STAGES)
                known = features(model, few.batch(torch.arange(len(few))).numpy())
                mean, size = known.mean(0), known.std(0) + 1e-6
                classifier = logistic((known - mean) / size, few.labels, PENALTY / len(few))
                counted = Contingency(len(STAGES), len(STAGES))
                counted.update(truth, classifier.classify((judged - mean) / size).numpy())
                rows.append({"initial": initial, "subjects": number, "seed": seed, "kappa": float(counted.kappa())})
    return rows


@torch.inference_mode()
def features(model: SignalPart, windows: np.ndarray) -> Tensor:
    """Compute the mean and standard deviation over time of each window's tokens, ``(n, 2 d)``."""
    found = []
    for some in torch.from_numpy(np.array(windows, np.float32)).split(256):
        tokens = model.encode(some).patch
        found.append(torch.cat([tokens.mean(1), tokens.std(1)], 1))
    return torch.cat(found)


if __name__ == "__main__":
    main()
