"""Train a list of models in ten minutes of a GPU; experiments/gpu_burst.sh calls this (docs/training.md).

Each training starts from its recipe, with batches for a GPU. Their rates were scaled with the square root of the batch
and have not been tried. With --dry, each takes one step of small models or few images, which shows that all runs.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import torch
from gpu_burst_files import join, pack, send
from PIL import features

from partzoo.errors import PartzooError
from partzoo.evaluate.report import markdown
from partzoo.models.loading import load
from partzoo.skipping import SkippedWarning
from partzoo.train.loop import CHECKPOINT, MODEL
from partzoo.train.recipe import Recipe, read_recipe
from partzoo.train.release import HELD_OUT, metrics
from partzoo.train.run import train
from partzoo.weights.manifest import manifest

START = 25  # seconds that a process is expected to take before the first step
STOP = 20  # seconds that a process has to write its checkpoint, once it is asked to stop
EVERY = 2.0  # minutes between checkpoints


@dataclass(frozen=True)
class Burst:
    """A training of the list.

    Attributes:
        name: name of the run.
        recipe: recipe, and name of the weights that a CPU made with it.
        data: subfolder of the data.
        share: weight in the division of the minutes.
        batch_size, lr: in place of the recipe's.
        parent: weights to start from in place of the recipe's, or the file of an earlier run.
        dry: values of the configuration for a dry run.
    """

    name: str
    recipe: str
    data: str
    share: float
    batch_size: int
    lr: float
    parent: str = ""
    dry: dict[str, Any] = field(default_factory=dict)


LIST = (
    Burst("part-vits8", "part-vits8.tin", "tiny-imagenet", 4, 512, 6e-4, "part-vitn8.tin",
          {"dim": 64, "depth": 6, "heads": 1}),
    Burst("partformer", "partformer-lite0.faces-k8", "faces", 2, 64, 8e-4),
    Burst("spatial-resnet32", "spatial-resnet32.tin", "tiny-imagenet", 2, 128, 2.5e-3),
    Burst("foreground", "foreground-lite0.masks", ".", 1.5, 64, 1e-3, "foreground-lite0.masks"),
    Burst("mpae", "mpae-lite0.faces-k8", "faces", 1, 64, 1e-4),
    Burst("part-vitb8", "part-vitb8.tin", "tiny-imagenet", 1.5, 256, 1e-4, f"part-vits8/{MODEL}",
          {"dim": 128, "depth": 6, "heads": 2}),
)  # fmt: skip
BY_NAME = {each.name: each for each in LIST}


def masked(recipe: Recipe, data: Path) -> dict[str, Any]:
    """Return settings to train a foreground on those sets with masks that the data has, and on nothing else."""
    shares = dict(zip(recipe.data["sets"], recipe.data["shares"], strict=True))
    sets = [name for name in shares if (data / "masks" / f"{name}.tar").exists()]
    return {"sets": sets, "shares": [shares[name] for name in sets], "unlabelled": [], "every": [], "teacher": ""}


def train_one(each: Burst, data: Path, minutes: float, dry: bool) -> None:
    """Train one model into a folder of its name in the current folder; a batch that does not fit is halved."""
    recipe = read_recipe(each.recipe)
    recipe = replace(recipe, parent=each.parent or recipe.parent)
    reading: dict[str, Any] = masked(recipe, data) if recipe.method == "foreground" else {"limit": 8} if dry else {}
    budget: dict[str, Any] = {"steps": 1} if dry else {"minutes": minutes}
    # The archive has empty files in place of images that may not be read.
    warnings.simplefilter("ignore", SkippedWarning)
    budget |= {"checkpoint_minutes": EVERY, "log_steps": 1 if dry else 20, "resident": True}
    config, batch_size, lr = each.dry if dry else {}, 8 if dry else each.batch_size, each.lr
    while True:
        try:
            train(
                recipe.method, recipe=recipe, data=data / each.data, out=each.name, progress=False, config=config,
                reading=reading, batch_size=batch_size, lr=lr, **budget,
            )  # fmt: skip
            return
        except torch.OutOfMemoryError:
            if batch_size == 1 or Path(each.name, CHECKPOINT).exists():
                raise
            batch_size, lr = batch_size // 2, lr / math.sqrt(2)
            click.echo(f"{each.name}: the batch does not fit, and is halved to {batch_size}.")


def train_all(root: Path, out: Path, minutes: float, dry: bool) -> None:
    """Train the list, one process after another, and send each new checkpoint.

    A process that fails or needs more than its time does not end the list; what it leaves goes to the others.

    Args:
        root: folder with ``data`` and for ``runs`` and ``left``.
        out: folder whose files come back.
        minutes: minutes for all.
        dry: whether each takes one step.
    """
    runs, left = root / "runs", root / "left"
    for folder in (runs, left, out):
        folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes - STOP
    for number, each in enumerate(LIST):
        seconds = (end - time.monotonic()) * each.share / sum(other.share for other in LIST[number:])
        if each.parent.endswith(MODEL) and not (runs / each.parent).exists():
            click.echo(f"{each.name}: left out, because there is no {each.parent}.")
            continue
        click.echo(f"{each.name}: {seconds:.0f} s")
        began, sent = time.monotonic(), 0
        command = [sys.executable, __file__, "one", each.name, "--data", str(root / "data")]
        command += ["--dry"] if dry else ["--minutes", str(max(seconds - START, 5) / 60)]
        child = subprocess.Popen(command, cwd=runs)
        stops = [began + seconds, began + seconds + STOP]
        while True:
            code = child.poll()
            file = runs / each.name / CHECKPOINT
            if file.exists() and (written := file.stat().st_mtime_ns) != sent:
                sent = written
                try:
                    step = send(runs / each.name, left, out)
                    click.echo(f"{each.name}: sent step {step} after {time.monotonic() - began:.0f} s")
                except (PartzooError, OSError) as error:  # the list goes on
                    click.echo(f"{each.name}: not sent: {error}")
            if code is not None:
                break
            if stops and not dry and time.monotonic() > stops[0]:
                child.send_signal(signal.SIGINT if len(stops) == 2 else signal.SIGKILL)
                del stops[0]
            time.sleep(0.2)
        click.echo(f"{each.name}: ended with {code} after {time.monotonic() - began:.0f} s")


def check_machine() -> None:
    """Raise an error if this machine cannot read the data."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    click.echo(f"torch {torch.__version__}, {gpu}")
    if not features.check("avif"):
        raise click.ClickException("Pillow here reads no AVIF. Bring a wheel of pillow 12.2 or newer.")


@click.group()
def main() -> None:
    """Use ten minutes of a GPU."""


@main.command("pack")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path))
def pack_command(data: Path, out: Path) -> None:
    """Write the archive of code, weights and data."""
    kept, left = pack(data, out, read_recipe(BY_NAME["foreground"].recipe))
    click.echo(f"{out}: {out.stat().st_size / 2**20:.1f} MiB with {', '.join(kept)}.")
    click.echo(f"Left out: {', '.join(left) or 'nothing'}; all images without masks for the foreground.")


@main.command("run")
@click.argument("minutes", type=float)
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--dry", is_flag=True, help="One step of each, on whatever device there is.")
def run_command(minutes: float, out: Path, dry: bool) -> None:
    """Train the list."""
    check_machine()
    train_all(Path(__file__).parents[1], out, minutes, dry)


@main.command("one")
@click.argument("name", type=click.Choice(list(BY_NAME)))
@click.option("--data", required=True, type=click.Path(path_type=Path))
@click.option("--minutes", type=float, default=math.inf)
@click.option("--dry", is_flag=True)
def one_command(name: str, data: Path, minutes: float, dry: bool) -> None:
    """Train one model of the list."""
    train_one(BY_NAME[name], data, minutes, dry)


@main.command("unpack")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path))
def unpack_command(folder: Path, out: Path) -> None:
    """Make runs of what came back."""
    for run in join(folder, out):
        each = BY_NAME[run.name]
        method = read_recipe(each.recipe).method
        click.echo(f"{run}. Continue, and measure beside {each.recipe} ({manifest()[each.recipe].command}):")
        click.echo(f"    partzoo train {method} --data {Path('DATA', each.data)} -o {run} --resume --minutes TOTAL")
        click.echo(f"    bash experiments/gpu_burst.sh compare {run.name} DATA")


@main.command("compare")
@click.argument("name", type=click.Choice(list(BY_NAME)))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path))
def compare_command(name: str, data: Path, out: Path) -> None:
    """Measure a run with what measured its counterpart, and print both."""
    each = BY_NAME[name]
    record = manifest()[each.recipe]
    held_out = int(record.command.partition("--held-out ")[2] or HELD_OUT)
    model = load(out / name / MODEL, device="cpu", dtype="float32")
    theirs = {figure["name"]: figure["value"] for figure in record.metrics}
    rows = [["figure", name, each.recipe, "protocol"], ["---"] * 4]
    for figure in metrics(model, data / each.data, math.nan, limit=held_out):
        rows.append([figure["name"], f"{figure['value']}", f"{theirs.get(figure['name'], '')}", figure["protocol"]])
    click.echo(markdown(rows))


if __name__ == "__main__":
    try:
        main()
    except PartzooError as error:
        raise SystemExit(f"Error: {error}") from error
