"""Reproduce Spatial Reasoning's table 1 (Tiny-ImageNet column) and figure 4 with a small budget.

The script trains the same network on equally many images with relational reasoning, spatial reasoning and additive
patches, for several seeds, and probes the frozen features of an image and n of its patches, with random weights for
comparison (docs/spatial.md):

    python experiments/spatial_table.py --data DIR -o runs/spatial-table

The results of each training run are written to results/spatial/linear.csv when they are measured, and are not measured
again; a stopped run continues. With --tiny, everything is so small that the run ends in seconds and the results are
meaningless.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import torch
from rows import append, markdown, read

from partzoo.cli.options import Numbers
from partzoo.evaluate.probes.patches import patch_figures
from partzoo.evaluate.protocols import get
from partzoo.models.loading import build
from partzoo.models.registry import find
from partzoo.models.spatial.model import WINDOWS, Spatial
from partzoo.system.memory import kept_memory
from partzoo.train.run import train

RECIPE = "spatial-resnet8.tin"
TABLE, IMAGE = "linear.csv", "spatial-patches.png"


@dataclass(frozen=True)
class Method:
    """A row of the paper's table 1.

    Attributes:
        title: description of the training; the last row is the published code's additive variant.
        paper: accuracy in the paper, in per cent, with ``patches`` at inference.
        patches: number of patches of each image at inference.
        task, config: settings of the method; random weights have no task.
    """

    title: str
    paper: float
    patches: int
    task: dict[str, Any] | None
    config: dict[str, Any]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of patches with which the method can be probed."""
        return (0,) if self.config else tuple(WINDOWS) if self.task else (0, 9)


METHODS = {
    "random": Method("random weights", 3.24, 0, None, {}),
    "relational": Method("relational reasoning", 30.54, 0, {"patches": 0}, {}),
    "plain": Method("spatial reasoning, 2 patches", 33.08, 9, {"patches": 2}, {}),
    "additive": Method("12 additive patches", 32.85, 0, {"patches": 12}, {"additive": True}),
    "additive-negatives": Method(
        "12 additive patches, also pairs of different images",
        32.85,
        0,
        {"patches": 12, "patch_negatives": True},
        {"additive": True},
    ),
}


def trained(
    name: str, seed: int, data: Path, folder: Path, architecture: str, sizes: dict[str, int], **budget: Any
) -> tuple[Spatial, int, float] | None:
    """Train a model; return it with the images it saw and the minutes it took, or None if it was stopped early."""
    method = METHODS[name]
    if method.task is None:
        entry = find(architecture)
        torch.manual_seed(seed)
        return build(entry, entry.configure(sizes)).eval(), 0, 0.0
    model, state = train(
        "spatial", data=data, out=folder / f"{name}-{seed}", recipe=RECIPE, model=architecture, seed=seed, resume=True,
        task=method.task, config=sizes | method.config, progress=False, **budget,
    )  # fmt: skip
    return (model.eval(), state.images, state.seconds / 60) if state.finished else None


def measured(model: Spatial, data: Path, name: str, seed: int, limit: int) -> list[dict[str, Any]]:
    """Measure the accuracies for each number of patches, for the last columns of the table."""
    numbers = METHODS[name].numbers
    with torch.inference_mode(), kept_memory():
        runs, _ = patch_figures(model, get("tiny-imagenet"), data, patches=numbers, seeds=[seed], limit=limit)
    found = {key: value for run in runs for key, value in run["metrics"].items()}
    return [
        {"patches": n} | {kind: f"{found[f'{kind}_patches{n}']:.2f}" for kind in ("linear", "linear_sgd")}
        for n in numbers
    ]


def of(rows: Sequence[dict[str, str]], method: str, patches: int, figure: str = "linear_sgd") -> list[float]:
    """Return a figure for all seeds."""
    return [float(row[figure]) for row in rows if (row["method"], row["patches"]) == (method, str(patches))]


def shown(values: Sequence[float]) -> str:
    """Format mean and standard deviation."""
    if not values:
        return ""
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def tables(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return the tables of docs/spatial.md: the methods as in table 1, and accuracies by number of patches."""
    filled = {name: method for name, method in METHODS.items() if any(row["method"] == name for row in rows)}
    methods = [
        (method.title, str(method.patches), f"{method.paper:.2f}",
         *(shown(of(rows, name, method.patches, figure)) for figure in ("linear_sgd", "linear")))
        for name, method in filled.items()
    ]  # fmt: skip
    curves = [(method.title, *(shown(of(rows, name, n)) for n in WINDOWS)) for name, method in filled.items()]
    return [
        markdown(("method", "patches at inference", "the paper", "here", "here, with a probe in closed form"), methods),
        markdown(("method", *map(str, WINDOWS)), curves),
    ]


def draw(rows: Sequence[dict[str, str]], file: Path) -> None:
    """Draw figure 4: accuracy by number of patches at inference, with mean, lowest and highest over seeds."""
    figure, axis = plt.subplots(figsize=(6, 3.8))
    for name, method in METHODS.items():
        found = {n: values for n in method.numbers if (values := of(rows, name, n))}
        if found:
            means = [statistics.mean(values) for values in found.values()]
            ends = [[abs(end(v) - m) for v, m in zip(found.values(), means, strict=True)] for end in (min, max)]
            axis.errorbar(list(found), means, ends, marker="o", capsize=3, label=method.title)
    axis.set(xlabel="patches at inference, beside the image", ylabel="accuracy of a linear probe, %")
    axis.set_ylim(0)
    axis.legend(fontsize=8)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _check(row: dict[str, str], wanted: dict[str, str], file: Path) -> None:
    """Refuse a table that was made with a different setting.

    Raises:
        click.UsageError: the table was made with a different setting.
    """
    if differing := [name for name, value in wanted.items() if row[name] != value]:
        raise click.UsageError(f"{file} holds another {' and '.join(differing)}: give another folder by --results.")


@click.command(help=__doc__)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of Tiny-ImageNet.")
@click.option("-o", "--out", default="runs/spatial-table", show_default=True, type=click.Path(path_type=Path))
@click.option("--results", default="results/spatial", show_default=True, type=click.Path(path_type=Path))
@click.option("--images", default="docs/images", show_default=True, type=click.Path(path_type=Path))
@click.option("--model", default="spatial-conv4", show_default=True, help="Architecture.")
@click.option("--method", "methods", multiple=True, type=click.Choice([*METHODS]), help="Row to fill; all by default.")
@click.option("--size", default=32, show_default=True, help="Side of the images; patches have 3/8 of it.")
@click.option("--epochs", default=1.0, show_default=True, help="Epochs of each training run.")
@click.option("--seeds", default="0,1,2", show_default=True, type=Numbers(least=0))
@click.option("--limit", default=20000, show_default=True, help="Number of images that the probes learn from.")
@click.option("--threads", default=1, show_default=True)
@click.option("--tiny", is_flag=True, help="Make a quick run that only shows that everything works.")
def main(
    data: Path,
    out: Path,
    results: Path,
    images: Path,
    model: str,
    methods: Sequence[str],
    size: int,
    epochs: float,
    seeds: list[int],
    limit: int,
    threads: int,
    tiny: bool,
) -> None:
    torch.set_num_threads(threads)
    budget: dict[str, Any] = {"epochs": epochs}
    if tiny:
        size, budget, limit = 32, {"steps": 1, "batch_size": 2}, 20
    sizes = {"size": size, "patch_size": 3 * size // 8}
    file = results / TABLE
    known = read(file)
    for row in known:
        _check(row, {"architecture": model, "size": str(size), "probed": str(limit)}, file)
    done = {(row["method"], row["seed"]) for row in known}
    for seed in seeds:
        for name in methods or METHODS:
            if (name, str(seed)) in done:
                continue
            if (found := trained(name, seed, data, out, model, sizes, **budget)) is None:
                return
            network, seen, minutes = found
            run = {"method": name, "seed": seed, "architecture": model, "size": size, "images": seen,
                   "minutes": f"{minutes:.1f}", "probed": limit}  # fmt: skip
            append(file, [run | row for row in measured(network, data, name, seed, limit)])
    draw(read(file), images / IMAGE)
    for text in tables(read(file)):
        click.echo(text)


if __name__ == "__main__":
    main()
