"""Accuracy on Tiny-ImageNet at few labels, after PART off the grid, on the grid, and from scratch: docs/transfer.md.

Pretrains both for the same time on the folder's pictures, finetunes them, the released part-vitt8.tin and the network
from scratch on few labelled pictures of each class, and prints the mean and standard deviation over seeds:

    python docs/few_labels.py --data DIR -o runs/few-labels

With --tiny everything is so small that it says nothing and ends in a minute. What was stopped goes on with the same
command.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from partzoo.cli.command import table
from partzoo.train.few_labels import few_labels, means
from partzoo.train.run import train


@click.command(help=__doc__)
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Folder of Tiny-ImageNet, or any with classes."
)
@click.option("-o", "--out", default="runs/few-labels", show_default=True, type=click.Path(path_type=Path))
@click.option("--minutes", default=6.0, show_default=True, help="Of each of the two pretrainings.")
@click.option("--steps", default=150, show_default=True, help="Of each finetuning, 64 pictures each.")
@click.option("--per-class", default="20", show_default=True, help="Labelled pictures of each class, as 10,50.")
@click.option("--every", default=10, show_default=True, help="Use every so many classes: 20 of Tiny-ImageNet's 200.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--tiny", is_flag=True, help="To see that it runs.")
@click.option("--threads", default=1, show_default=True)
def main(
    data: Path, out: Path, minutes: float, steps: int, per_class: str, every: int, seeds: int, tiny: bool, threads: int
) -> None:
    torch.set_num_threads(threads)
    counts, limit, config = [int(each) for each in per_class.split(",")], None, {}
    if tiny:
        minutes, steps, counts, seeds, limit = 0.05, 2, [2], 2, 256
        config = {"dim": 48, "depth": 2}
    parents: dict[str, str | Path | None] = {}
    for label, sampling in (("off-grid", "integer"), ("on-grid", "on-grid")):
        run = out / label
        task = {"sampling": sampling}
        train("part", data=data, out=run, minutes=minutes, limit=limit, task=task, config=config, resume=True)
        parents[label] = run / "model.safetensors"
    if not tiny:
        parents["part-vitt8.tin"] = "part-vitt8.tin"
    parents["scratch"] = None
    rows = few_labels(
        data,
        parents,
        out,
        per_class=counts,
        seeds=range(seeds),
        steps=steps,
        every=every,
        task={"layer_decay": 0.75, "scale": (0.35, 1.0), "policy": "rand-m5-mstd0.5-inc1"},
        loop={"batch_size": 64, "lr": 5e-4, "warmup": 0.05},
        progress=lambda row: print(row, flush=True),
    )
    shown = [
        [each["parent"], each["per_class"], f"{each['top1']:.1f} ± {each['std']:.1f}", each["seeds"]]
        for each in means(rows)
    ]
    table(shown, ["pretraining", "pictures of a class", "top-1 (%)", "seeds"])


if __name__ == "__main__":
    main()
