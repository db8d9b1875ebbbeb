"""Whether pretraining by PART helps with few labels, on made-up nights of sleep: docs/signals.md.

Writes nights, pretrains a small model on those that are not held out, and finetunes it and one from random weights:

    python docs/signals_experiment.py -o runs/signals

With --tiny everything is so small that it says nothing and ends in a minute.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from partzoo.cli.command import table
from partzoo.signals.synthetic import write_nights
from partzoo.train.run import train
from partzoo.train.stages import means, sample_efficiency

SMALL = {"dim": 64, "depth": 4, "heads": 4}


@click.command(help=__doc__)
@click.option("-o", "--out", default="runs/signals", show_default=True, type=click.Path(path_type=Path))
@click.option("--pretraining", default=5500, show_default=True, help="Steps of pretraining.")
@click.option("--steps", default=300, show_default=True, help="Of each finetuning.")
@click.option("--seeds", default=5, show_default=True)
@click.option("--tiny", is_flag=True, help="To see that it runs.")
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
        lr=1e-3,
        threads=threads,
        resume=True,
        config=SMALL,
        reading={"held_out": test_sleepers, "cache": cache},
    )
    rows = sample_efficiency(
        out / "pretrained" / "model.safetensors",
        nights,
        out / "stages",
        subjects=subjects,
        seeds=seeds,
        test_subjects=test_sleepers,
        cache=cache,
        steps=steps,
        batch_size=32,
        lr=1e-3,
        progress=lambda row: print(row, flush=True),
    )
    shown = [[f"{value:.3f}" if isinstance(value, float) else value for value in each.values()] for each in means(rows)]
    table(shown, list(means(rows)[0]))


if __name__ == "__main__":
    main()
