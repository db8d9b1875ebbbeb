"""The command ``partzoo train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from partzoo.cli.command import Command
from partzoo.cli.options import complete_weights, device_option, seed_range, threads_range
from partzoo.errors import counted


@click.command(
    cls=Command,
    short_help="Train a model on a folder of images.",
    epilog="""
    \b
    Examples:
      partzoo train part --data images/ --minutes 60 -o runs/mine
      partzoo train part --data images/ --minutes 60 -o runs/mine --resume
      partzoo train part --data images/ --model part-vits8 --steps 10000 -o runs/small
      partzoo train part --data images/ --model part-vits8 --grow-from part-vitt8 --minutes 60 -o runs/grown
      partzoo train partformer --data images/ -k 8 --minutes 120 -o runs/parts
      partzoo train partformer --data CUB_200_2011/ --recipe partformer-vits8.cub-f -o runs/cub
      partzoo train partformer --data images/ --set exchange=false --set config.tau=1 -o runs/one
      partzoo train partformer --data images/ --recipe runs/one/recipe.toml -o runs/again
      partzoo train classify --data folders-by-class/ --minutes 60 -o runs/labels
      partzoo train finetune --data folders-by-class/ --parent part-vitt8 --epochs 50 -o runs/finetuned
      partzoo train finetune --data folders-by-class/ --parent none --set data.per_class=10 --steps 500 -o runs/few
      partzoo train --release part-vitt8.tin --data tiny-imagenet/ -o runs/release
    \b
    Methods: part, spatial (features, no labels), partformer, mpae (parts, no labels),
    foreground (images with masks, or a teacher), classify, finetune (one subfolder per class), objectness
    (a foreground head beside a trained encoder, no masks), part-signals (recordings, no labels).
    --set KEY=VALUE: KEY is an option of the method, or config.X of the model, loop.X of the
    optimizer and its schedule, data.X of how data is read; an unknown KEY lists all keys.
    Ctrl-C stops after the current step and saves a checkpoint, from which --resume continues.
    Afterwards: partzoo discover photo.jpg --model runs/mine/model.safetensors -o parts.png
    """,
)
@click.argument("method", required=False)
@click.option("--release", metavar="NAME", help="Make the released weights NAME: train, measure, pack, record.")
@click.option("--data", required=True, type=click.Path(), help="Folder of images; its subfolders are read as well.")
@click.option("-o", "--out", type=click.Path(file_okay=False), help="Folder of the run.  [default: runs/NAME]")
@click.option("--model", metavar="NAME", shell_complete=complete_weights, help="Architecture to train.")
@click.option(
    "--grow-from",
    metavar="NAME",
    shell_complete=complete_weights,
    help="Smaller trained model to grow from, or none (part, spatial).",
)
@click.option(
    "--parent", metavar="NAME", shell_complete=complete_weights, help="PART model to finetune, or none (finetune)."
)
@click.option("--recipe", metavar="NAME", help="Name of a recipe, or a .toml file such as a run's recipe.toml.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting that overrides the recipe.")
@click.option("-k", type=click.IntRange(min=1), help="Number of parts to learn (partformer, mpae).")
@click.option("--minutes", type=float, help="Time budget in minutes; a resumed run counts all its pieces.")
@click.option("--steps", type=int, help="Budget in steps, instead of minutes.")
@click.option("--epochs", type=float, help="Budget in epochs, instead of minutes.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--batch-size", type=int, help="Number of images in a step.")
@click.option("--lr", type=float, help="Highest learning rate.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="bf16 is faster where it is native.")
@click.option("--seed", type=seed_range, help="Random seed.  [default: the recipe's, or 0]")
@click.option("--limit", type=int, help="Use at most this many images.")
@click.option("--held-out", type=click.IntRange(min=5), help="Measure a release on this many images.  [default: 5000]")
@device_option
@click.option("--threads", type=threads_range, help="Number of CPU threads.")
def train(
    method: str | None,
    release: str | None,
    data: str,
    out: str | None,
    model: str | None,
    grow_from: str | None,
    parent: str | None,
    recipe: str | None,
    settings: tuple[str, ...],
    k: int | None,
    minutes: float | None,
    steps: int | None,
    epochs: float | None,
    resume: bool,
    batch_size: int | None,
    lr: float | None,
    precision: str | None,
    seed: int | None,
    limit: int | None,
    held_out: int | None,
    device: str | None,
    threads: int | None,
) -> None:
    """Train a model with METHOD on a folder of images, within a budget of minutes, steps or epochs."""
    if (method is None) == (release is None):
        raise click.UsageError("Name a method, for example 'partzoo train part', or --release NAME.")
    from partzoo.train.processes import start_all

    start_all()
    budget: dict[str, Any] = {"minutes": minutes, "steps": steps, "epochs": epochs}
    common: dict[str, Any] = {"data": data, "resume": resume, "threads": threads, "device": device}
    if release is not None:
        given = {
            "--model": model,
            "--grow-from": grow_from,
            "--parent": parent,
            "--recipe": recipe,
            "--set": settings or None,
            "-k": k,
            "--batch-size": batch_size,
            "--lr": lr,
            "--precision": precision,
            "--seed": seed,
            "--limit": limit,
        }
        if fixed := [name for name, value in given.items() if value is not None]:
            raise click.UsageError(
                f"{', '.join(fixed)} cannot be set with --release, whose recipe states it. Leave it out."
            )
        from partzoo.train.release import HELD_OUT as MOST
        from partzoo.train.release import release as make

        place = Path(out or Path("runs", release))
        if resume:
            _check_resumed(place)
        record = make(release, out=str(place), held_out=held_out or MOST, **common, **budget)
        files = ", ".join(file.path for file in record.files)
        click.echo(f"Released {record.name}: {files}; its record is in weights_manifest.json.")
        return
    if method is None or held_out is not None:
        raise click.UsageError("--held-out is an option of --release. Leave it out.")
    from partzoo.settings import parse_settings
    from partzoo.train.processes import processes
    from partzoo.train.run import train as run

    folder = Path(out or Path("runs", model or method))
    tables = parse_settings(settings)
    loop: dict[str, Any] = (
        budget | {"batch_size": batch_size, "lr": lr, "precision": precision, "seed": seed} | tables["loop"]
    )
    chosen: dict[str, Any] = {"task": tables["task"], "config": tables["config"], "reading": tables["data"]}
    named: dict[str, Any] = {
        "model": model,
        "recipe": recipe,
        "grow_from": grow_from,
        "parent": parent,
        "k": k,
        "limit": limit,
    }
    if resume:
        _check_resumed(folder)
    _, state = run(method, out=folder, **named, **common, **chosen, **loop)
    if not processes().is_main_process:
        return
    done = f"{counted(state.step, 'step')} and {counted(state.images, 'image')} in {state.seconds / 60:.1f} minutes"
    if state.finished:
        click.echo(f"Trained for {done}. Load it with partzoo.load({str(folder / 'model.safetensors')!r}).")
        if method == "finetune":
            from partzoo.train.tasks.finetune import HELD_OUT

            figures = json.loads((folder / HELD_OUT).read_text())
            skipped = f" ({len(figures['failed'])} skipped)" if figures["failed"] else ""
            images = counted(figures["images"], "held-out image")
            click.echo(f"Top-1 on {images}{skipped}: {figures['top1']:.2f} %.")
    else:
        click.echo(f"Stopped after {done}. Continue with the same command and --resume.")


def _check_resumed(folder: Path) -> None:
    """Print a line on stderr if a folder holds no run to resume."""
    from partzoo.train.loop import CHECKPOINT
    from partzoo.train.processes import processes

    if not (folder.expanduser() / CHECKPOINT).exists() and processes().is_main_process:
        click.echo(f"{folder} has no run to continue: the training starts from the beginning.", err=True)
