"""How well PART learns where patches lie, by relative encoder, sampling and number of pairs: docs/relations.md.

Trains the same small network from random weights for the same number of steps in every setting, and measures its
position errors on held-out pictures, off the grid and on it:

    python docs/position_errors.py --data DIR -o runs/position-errors

Each setting is two rows of results/part/position-errors.csv, written when it is done, and is not run again.
With --tiny everything is so small that it says nothing and ends in seconds.
"""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import torch

from partzoo.cli.command import table
from partzoo.evaluate.held_out import part_positions
from partzoo.loading import build
from partzoo.models.part import Part
from partzoo.registry import find
from partzoo.train.data import PictureSet
from partzoo.train.datasets import DataOptions, read_pictures
from partzoo.train.loop import CHECKPOINT, LoopOptions, fit
from partzoo.train.part import PartTask

ENCODERS = ("cross-attention", "bare", "pairwise-mlp", "mlp")  # bare: cross-attention without projections
PAIRS = (256, 1024, 4096, 64, 512)  # beside the 2,048 of all others; 4,096 are all
LONGER = 3  # times as many steps, to see where curves cross
EVALUATED = ("off-grid", "on-grid")
LOOP = {"optimizer": "muon", "lr": 2e-3, "betas": (0.9, 0.95), "batch_size": 32, "log_steps": 10}
ROWS, CURVES, IMAGE = "position-errors.csv", "curves.csv", "position-errors.png"
TERMS = ("loss", "positions", "sizes")


@dataclass(frozen=True)
class Setting:
    """What is trained, and for how long."""

    encoder: str = "cross-attention"
    sampling: str = "integer"
    pairs: int = 2048
    targets: int = 2
    seed: int = 0
    dim: int = 64
    depth: int = 4
    size: int = 64
    steps: int = 1000

    def network(self) -> Part:
        """The network, with random weights of the seed."""
        entry = find("part-vitt8")
        encoder = "cross-attention" if self.encoder == "bare" else self.encoder
        values = {"relative_encoder": encoder, "projections": self.encoder != "bare", "heads": max(self.dim // 32, 1)}
        torch.manual_seed(self.seed)
        return build(
            entry,
            entry.configure(
                values | {name: getattr(self, name) for name in ("dim", "depth", "size", "targets")},
            ),
        )

    def key(self) -> dict[str, str]:
        """As the columns of a table."""
        return {name: str(value) for name, value in asdict(self).items()}


def settings(base: Setting, seeds: int) -> list[Setting]:
    """All settings, those that say most first."""
    found = [replace(base, encoder=encoder) for encoder in ENCODERS]
    found += [replace(base, encoder=encoder, sampling="on-grid") for encoder in ENCODERS[:3]]
    found += [replace(base, pairs=pairs) for pairs in PAIRS[:3]]
    found += [replace(base, sampling="multi-scale", targets=4), replace(base, encoder="mlp", sampling="on-grid")]
    found += [
        replace(base, encoder=encoder, steps=LONGER * base.steps) for encoder in ("cross-attention", "pairwise-mlp")
    ]
    found += [replace(base, pairs=pairs) for pairs in PAIRS[3:]]
    found += [replace(base, encoder=encoder, seed=seed) for seed in range(1, seeds) for encoder in ENCODERS]
    return found


def run(setting: Setting, training: PictureSet, unseen: PictureSet, limit: int, out: Path, results: Path) -> bool:
    """Train and measure one setting, and write its rows; False where it was stopped before."""
    folder = out / "-".join(setting.key().values())
    shutil.rmtree(folder, ignore_errors=True)
    pairs = 0 if setting.pairs == 4096 else setting.pairs
    task = PartTask(setting.network(), pairs=pairs, sampling=setting.sampling)
    options = LoopOptions(**LOOP, steps=setting.steps, seed=setting.seed)
    began = time.process_time()
    if not fit(task, training, options, folder, progress=False).finished:
        return False
    cost = {
        "relative_parameters": sum(each.numel() for each in task.model.relative_encoder.parameters()),
        "core_seconds": f"{time.process_time() - began:.0f}",
    }
    (folder / CHECKPOINT).unlink()
    curve = [setting.key() | {name: row.get(name, "") for name in ("step", *TERMS)} for row in read(folder / "log.csv")]
    append(results / CURVES, curve)
    rows = []
    for sampling in EVALUATED if setting.targets == 2 else ("multi-scale",):
        found = part_positions(task.model, unseen, sampling=sampling, limit=limit)
        figures = {name: f"{found[name]:.4f}" if name in found else "" for name in FIGURES}
        rows.append(setting.key() | cost | {"evaluated": sampling} | figures)
    append(results / ROWS, rows)
    return True


ERRORS = ("mse_x", "mse_y", "distance", "mse_w", "mse_h")
FIGURES = (*ERRORS, *(f"constant_{name}" for name in ERRORS), "antisymmetry", "random_antisymmetry")


def read(file: Path) -> list[dict[str, str]]:
    """The rows of a table; none where it is not there yet."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def append(file: Path, rows: Sequence[dict]) -> None:
    """Add rows to a table, with a head where it is new."""
    new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def of(rows: Sequence[dict[str, str]], setting: Setting, **more: str) -> list[dict[str, str]]:
    """Those of a setting."""
    wanted = (setting.key() | more).items()
    return [row for row in rows if wanted <= row.items()]


def draw(base: Setting, rows: Sequence[dict[str, str]], curves: Sequence[dict[str, str]], file: Path) -> None:
    """Losses by relative encoder, errors by number of pairs, and the terms of four targets."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6))
    for encoder in ENCODERS:
        plot_median(axes[0], of(curves, replace(base, encoder=encoder)), "loss", encoder)
    axes[0].set(title="training loss off the grid", xlabel="step", ylabel="mean squared error, patches²")
    measured = [(pairs, of(rows, replace(base, pairs=pairs), evaluated="off-grid")) for pairs in sorted({*PAIRS, 2048})]
    measured = [(pairs, found[0]) for pairs, found in measured if found]
    for name in ("mse_x", "mse_y"):
        axes[1].plot([p for p, _ in measured], [float(row[name]) for _, row in measured], "o-", label=name[-1])
    axes[1].set_xscale("log", base=2)
    axes[1].set(title="held-out error by number of pairs", xlabel="pairs of a picture", ylabel="mean squared error")
    four = replace(base, sampling="multi-scale", targets=4)
    for name in ("positions", "sizes"):
        for row in of(rows, four):
            constant = [float(row[f"constant_mse_{axis}"]) for axis in ("xy" if name == "positions" else "wh")]
            plot_median(axes[2], of(curves, four), name, name, sum(constant) / 2)
    axes[2].axhline(1, color="grey", lw=1)
    axes[2].set(title="four targets, training loss", xlabel="step", ylabel="part of the constant predictor's")
    axes[2].set_ylim(0, 1.3)
    for axis in axes:
        if axis.has_data():
            axis.legend(fontsize=8)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def plot_median(axis: plt.Axes, rows: Sequence[dict[str, str]], name: str, label: str, unit: float = 1.0) -> None:
    """A term over the steps: a running median, because each logged value is of one batch."""
    if not rows:
        return
    values = np.pad([float(row[name]) / unit for row in rows], 4, mode="edge")
    axis.plot(
        [int(row["step"]) for row in rows],
        np.median(np.lib.stride_tricks.sliding_window_view(values, 9), axis=1),
        label=label,
    )


@click.command(help=__doc__)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of Tiny-ImageNet, or any other.")
@click.option("-o", "--out", default="runs/position-errors", show_default=True, type=click.Path(path_type=Path))
@click.option("--results", default="results/part", show_default=True, type=click.Path(path_type=Path))
@click.option("--images", default="docs/images", show_default=True, type=click.Path(path_type=Path))
@click.option("--dim", default=64, show_default=True, help="Channels, 32 for each head; part-vitt8 has 192.")
@click.option("--depth", default=4, show_default=True, help="Blocks; part-vitt8 has 12.")
@click.option("--steps", default=1000, show_default=True, help="Of each training, 32 pictures each.")
@click.option("--limit", default=2000, show_default=True, help="Held-out pictures.")
@click.option("--seeds", default=1, show_default=True, help="Of the four encoders off the grid.")
@click.option("--tiny", is_flag=True, help="To see that it runs.")
@click.option("--threads", default=1, show_default=True)
def main(
    data: Path,
    out: Path,
    results: Path,
    images: Path,
    dim: int,
    depth: int,
    steps: int,
    limit: int,
    seeds: int,
    tiny: bool,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    base = Setting(dim=dim, depth=depth, steps=steps)
    if tiny:
        base, limit = replace(base, dim=32, depth=1, steps=2, size=32), 8
    results.mkdir(parents=True, exist_ok=True)
    training, unseen = (read_pictures(data, DataOptions(), base.size, split=split) for split in ("train", "val"))
    for setting in settings(base, seeds):
        if of(read(results / ROWS), setting):
            continue
        if not run(setting, training, unseen, limit, out, results):
            break
    draw(base, read(results / ROWS), read(results / CURVES), images / IMAGE)
    shown = ("encoder", "sampling", "pairs", "targets", "seed", "evaluated", "relative_parameters", "core_seconds")
    shown += ("mse_x", "mse_y", "distance", "constant_mse_x", "constant_distance", "antisymmetry")
    table([[row[name] for name in shown] for row in read(results / ROWS)], shown)


if __name__ == "__main__":
    main()
