"""Measure how well PART predicts patch positions, by relative encoder, sampling and number of pairs.

The script trains the same small network from random weights for the same number of steps in every setting, and measures
its position errors on held-out images, off the grid and on it (docs/relations.md):

    python experiments/position_errors.py --data DIR -o runs/position-errors

Each setting becomes two rows of results/part/position-errors.csv, written when it is done, and is not run again.
With --tiny, everything is so small that the run ends in seconds and the results are meaningless.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import torch
from rows import append, markdown, read

from partzoo.data.image_sets import ImageSet
from partzoo.evaluate.probes.held_out import normalized_batches, part_positions
from partzoo.models.loading import build
from partzoo.models.part.model import Part
from partzoo.models.part.sampling import sample
from partzoo.models.registry import find
from partzoo.train.datasets import DataOptions, read_images
from partzoo.train.loop import CHECKPOINT, LoopOptions, fit
from partzoo.train.tasks.part import PartTask

ERRORS = ("mse_x", "mse_y", "distance", "mse_w", "mse_h")
FIGURES = (*ERRORS, *(f"constant_{name}" for name in ERRORS), "antisymmetry", "random_antisymmetry")
FIGURES += ("correlation_x", "correlation_y", "additive")
ENCODERS = ("cross-attention", "bare", "pairwise-mlp", "mlp")  # "bare" is cross-attention without projections
PAIRS = (256, 1024, 4096)  # besides the 2,048 of all other settings; 4,096 is all pairs
EVALUATED = ("off-grid", "on-grid")
LOOP = {"optimizer": "muon", "lr": 2e-3, "betas": (0.9, 0.95), "batch_size": 32, "log_steps": 10}
ROWS, CURVES, IMAGE = "position-errors.csv", "curves.csv", "position-errors.png"
TERMS = ("loss", "positions", "sizes")


@dataclass(frozen=True)
class Setting:
    """A network to train, with its sampling, targets and duration."""

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
        """Make the network, with random weights from the seed."""
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
        """Return the setting as columns of a table."""
        return {name: str(value) for name, value in asdict(self).items()}


def settings(base: Setting) -> list[Setting]:
    """Return all settings, the most informative ones first."""
    found = [replace(base, encoder=encoder) for encoder in ENCODERS]
    found += [replace(base, encoder=encoder, sampling="on-grid") for encoder in ENCODERS[:3]]
    found += [replace(base, pairs=pairs) for pairs in PAIRS]
    found += [replace(base, sampling="multi-scale", targets=4), replace(base, encoder="mlp", sampling="on-grid")]
    return found


def run(setting: Setting, training: ImageSet, unseen: ImageSet, limit: int, out: Path, results: Path) -> bool:
    """Train and measure one setting, and write its rows; return False if it was stopped early."""
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
        found |= consistency(task.model, unseen, sampling, min(limit, 500))
        figures = {name: f"{found[name]:.4f}" if name in found else "" for name in FIGURES}
        rows.append(setting.key() | cost | {"evaluated": sampling} | figures)
    append(results / ROWS, rows)
    return True


@torch.inference_mode()
def consistency(model: Part, images: ImageSet, sampling: str, limit: int) -> dict[str, float]:
    """Measure the antisymmetry of the translations, and how close they are to differences of two positions.

    ``correlation_x`` and ``correlation_y`` correlate each translation with the negated reverse one, over pairs of
    different patches; ``additive`` is the share of the translations' variance that is explained by a number for the
    target plus one for the reference.
    """
    generator, totals = torch.Generator().manual_seed(0), torch.zeros(3)
    for _, pixels in normalized_batches(model, images, 50, limit):
        drawn = sample(pixels, model.patch, sampling, generator=generator)
        there = model.relate(drawn.patches)[..., :2].unflatten(1, (drawn.boxes.shape[1],) * 2)
        different = ~torch.eye(there.shape[1], dtype=torch.bool)
        ways = torch.stack([there, -there.transpose(1, 2)])[:, :, different].flatten(1, 2)
        correlations = [torch.corrcoef(ways[..., axis])[0, 1] for axis in range(2)]
        places = there.mean(1, keepdim=True) + there.mean(2, keepdim=True) - there.mean((1, 2), keepdim=True)
        totals += torch.stack([*correlations, 1 - (there - places).var() / there.var()]) * len(pixels)
    return dict(
        zip(("correlation_x", "correlation_y", "additive"), (totals / min(limit, len(images))).tolist(), strict=True)
    )


def of(rows: Sequence[dict[str, str]], setting: Setting, **more: str) -> list[dict[str, str]]:
    """Return the rows of a setting."""
    wanted = (setting.key() | more).items()
    return [row for row in rows if wanted <= row.items()]


def tables(base: Setting, rows: Sequence[dict[str, str]]) -> list[str]:
    """Return the tables of docs/relations.md: relative encoders and samplings, numbers of pairs, four targets."""
    trained = [
        replace(base, encoder=encoder, sampling=sampling) for sampling in ("integer", "on-grid") for encoder in ENCODERS
    ]
    encoders = [encoder_row(*found) for setting in trained if len(found := of(rows, setting)) == 2]
    constants = [three(row, "constant_") for row in of(rows, base)]
    if constants:
        encoders.append(("constant", *[""] * 3, *constants, "", ""))
    pairs = [(n, row) for n in sorted({*PAIRS, base.pairs}) for row in of(rows, replace(base, pairs=n))[:1]]
    four = of(rows, replace(base, sampling="multi-scale", targets=4))
    return [
        markdown(
            ("relative encoder", "trained", "parameters", "seconds", "measured off the grid",
             "measured on the grid", "correlation", "additive"),
            encoders,
        ),
        markdown(("pairs", "errors off the grid"), [(f"{count:,}", three(row)) for count, row in pairs]),
        markdown(
            ("four targets", "x", "y", "w", "h"),
            [
                (name, *(f"{float(row[f'{prefix}mse_{axis}']):.3f}" for axis in "xywh"))
                for row in four
                for name, prefix in (("model", ""), ("constant", "constant_"))
            ],
        ),
    ]  # fmt: skip


def encoder_row(off: dict[str, str], on: dict[str, str]) -> tuple[str, ...]:
    """Return a line of the first table, from the measurements off the grid and on it."""
    sampling = "on the grid" if off["sampling"] == "on-grid" else "off the grid"
    cost = (f"{int(off['relative_parameters']):,}", off["core_seconds"])
    correlation = " / ".join(f"{float(off[f'correlation_{axis}']):.3f}" for axis in "xy")
    return off["encoder"], sampling, *cost, three(off), three(on), correlation, f"{100 * float(off['additive']):.1f} %"


def three(row: dict[str, str], prefix: str = "") -> str:
    """Format the mean squared errors of x and y and the mean distance."""
    return " / ".join(f"{float(row[prefix + name]):.2f}" for name in ERRORS[:3])


def draw(base: Setting, rows: Sequence[dict[str, str]], curves: Sequence[dict[str, str]], file: Path) -> None:
    """Draw the losses of each relative encoder, the errors for each number of pairs, and the terms of four targets."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6))
    for encoder in ENCODERS:
        plot_median(axes[0], of(curves, replace(base, encoder=encoder)), "loss", encoder)
    axes[0].set(title="training loss off the grid", xlabel="step", ylabel="mean squared error, patches²")
    measured = [(pairs, of(rows, replace(base, pairs=pairs), evaluated="off-grid")) for pairs in sorted({*PAIRS, 2048})]
    measured = [(pairs, found[0]) for pairs, found in measured if found]
    for name in ("mse_x", "mse_y"):
        axes[1].plot([p for p, _ in measured], [float(row[name]) for _, row in measured], "o-", label=name[-1])
    axes[1].set_xscale("log", base=2)
    axes[1].set(title="held-out error by number of pairs", xlabel="pairs of an image", ylabel="mean squared error")
    four = replace(base, sampling="multi-scale", targets=4)
    for name in ("positions", "sizes"):
        for row in of(rows, four):
            constant = [float(row[f"constant_mse_{axis}"]) for axis in ("xy" if name == "positions" else "wh")]
            plot_median(axes[2], of(curves, four), name, name, sum(constant) / 2)
    axes[2].axhline(1, color="grey", lw=1)
    axes[2].set(title="four targets, training loss", xlabel="step", ylabel="part of the constant predictor's")
    axes[2].set_ylim(0, 1.3)
    for axis in axes:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def plot_median(axis: plt.Axes, rows: Sequence[dict[str, str]], name: str, label: str, unit: float = 1.0) -> None:
    """Plot a term over the steps as a running median of 170 steps, because each logged value is from one batch."""
    if not rows:
        return
    values = np.pad([float(row[name]) / unit for row in rows], 8, mode="reflect")
    axis.plot(
        [int(row["step"]) for row in rows],
        np.median(np.lib.stride_tricks.sliding_window_view(values, 17), axis=1),
        label=label,
    )


@click.command(help=__doc__)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of Tiny-ImageNet or other images.")
@click.option("-o", "--out", default="runs/position-errors", show_default=True, type=click.Path(path_type=Path))
@click.option("--results", default="results/part", show_default=True, type=click.Path(path_type=Path))
@click.option("--images", default="docs/images", show_default=True, type=click.Path(path_type=Path))
@click.option("--dim", default=64, show_default=True, help="Number of channels, 32 per head; part-vitt8 has 192.")
@click.option("--depth", default=4, show_default=True, help="Number of blocks; part-vitt8 has 12.")
@click.option("--steps", default=1000, show_default=True, help="Steps of each training run, 32 images each.")
@click.option("--limit", default=2000, show_default=True, help="Number of held-out images.")
@click.option("--seed", default=0, show_default=True, help="Random seed of weights and sampling.")
@click.option("--tiny", is_flag=True, help="Make a quick run that only shows that everything works.")
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
    seed: int,
    tiny: bool,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    base = Setting(seed=seed, dim=dim, depth=depth, steps=steps)
    if tiny:
        base, limit = replace(base, dim=32, depth=1, steps=2, size=32), 8
    results.mkdir(parents=True, exist_ok=True)
    training, unseen = (read_images(data, DataOptions(), base.size, split=split) for split in ("train", "val"))
    for setting in settings(base):
        if of(read(results / ROWS), setting):
            continue
        if not run(setting, training, unseen, limit, out, results):
            break
    draw(base, read(results / ROWS), read(results / CURVES), images / IMAGE)
    for text in tables(base, read(results / ROWS)):
        click.echo(text)


if __name__ == "__main__":
    main()
