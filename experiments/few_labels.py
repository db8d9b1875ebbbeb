"""Compare few-label accuracy on Tiny-ImageNet after PART off the grid, PART on the grid, and no pretraining.

The script pretrains a small network off and on the grid for equally many steps, finetunes both results and the
same network from scratch on few labelled images of each class, and prints the mean and standard deviation over seeds
(docs/transfer.md):

    python experiments/few_labels.py --data DIR -o runs/few-labels

A stopped run continues with the same command.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from partzoo.cli.command import table
from partzoo.train.few_labels import few_labels, means
from partzoo.train.recipe import Recipe
from partzoo.train.run import train

PRETRAINING = {"optimizer": "muon", "lr": 2e-3, "betas": [0.9, 0.95], "batch_size": 32}
FINETUNING = {"batch_size": 64, "lr": 1e-3, "warmup": 0.05}
# DeiT's full augmentation is made for long training: after 200 steps it is far below 200 steps with crops alone.
AUGMENTATION = {"scale": (0.5, 1.0), "policy": "", "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}


@click.command(help=__doc__)
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Folder of Tiny-ImageNet, or any with classes."
)
@click.option("-o", "--out", default="runs/few-labels", show_default=True, type=click.Path(path_type=Path))
@click.option("--pretrained", multiple=True, metavar="LABEL=NAME", help="PART model to use instead of pretraining.")
@click.option("--pretraining", default=1500, show_default=True, help="Steps of each pretraining, 32 images each.")
@click.option("--dim", default=64, show_default=True, help="Number of channels, 32 per head; part-vitt8 has 192.")
@click.option("--depth", default=4, show_default=True, help="Number of blocks; part-vitt8 has 12.")
@click.option("--steps", default=200, show_default=True, help="Steps of each finetuning, 64 images each.")
@click.option("--per-class", default="50,10", show_default=True, help="Numbers of labelled images of each class.")
@click.option(
    "--every", default=10, show_default=True, help="Use every n-th class: by default 20 of Tiny-ImageNet's 200."
)
@click.option("--seeds", default=3, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(
    data: Path,
    out: Path,
    pretrained: tuple[str, ...],
    pretraining: int,
    dim: int,
    depth: int,
    steps: int,
    per_class: str,
    every: int,
    seeds: int,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    parents: dict[str, str | Path | None] = dict(each.split("=", 1) for each in pretrained)
    if not parents:
        config = {"dim": dim, "depth": depth, "heads": max(dim // 32, 1)}
        for label, sampling in (("off-grid", "integer"), ("on-grid", "on-grid")):
            task = {"sampling": sampling}
            recipe = Recipe("part", "part-vitt8", steps=pretraining, config=config, loop=PRETRAINING, task=task)
            _, state = train("part", data=data, out=out / label, recipe=recipe, resume=True, progress=False)
            if not state.finished:
                return
            parents[label] = out / label / "model.safetensors"
    parents["scratch"] = None
    rows = few_labels(
        data,
        parents,
        out,
        per_class=[int(each) for each in per_class.split(",")],
        seeds=range(seeds),
        steps=steps,
        every=every,
        task=AUGMENTATION,
        loop=FINETUNING,
        progress=lambda row: print(row, flush=True),
    )
    shown = [
        [each["parent"], each["per_class"], f"{each['top1']:.1f} ± {each['std']:.1f}", each["seeds"]]
        for each in means(rows)
    ]
    table(shown, ["pretraining", "images of a class", "top-1 (%)", "seeds"])


if __name__ == "__main__":
    main()
