"""``partzoo train``."""

from __future__ import annotations

from pathlib import Path

import click

from partzoo.cli.command import Command
from partzoo.cli.options import complete_weights


@click.command(
    cls=Command,
    short_help="Train a model on a folder of pictures.",
    epilog="""
    \b
    Examples:
      partzoo train part --data pictures/ --minutes 60 -o runs/mine
      partzoo train part --data pictures/ --minutes 60 -o runs/mine --resume
      partzoo train part --data pictures/ --model part-vits8 --steps 10000 -o runs/small
      partzoo train partformer --data pictures/ -k 8 --minutes 120 -o runs/parts
      partzoo train classify --data folders-by-class/ --minutes 60 -o runs/labels
      partzoo train --release part-vitt8.tin --data tiny-imagenet/ -o runs/release
    \b
    Methods: part, spatial (features, no labels), partformer, mpae (parts, no labels),
    classify (one subfolder per class), objectness (things and surroundings,
    no labels, beside a trained encoder).
    Ctrl-C stops after the step, with a checkpoint that --resume continues.
    Then: partzoo discover photo.jpg --model runs/mine/model.safetensors -o parts.png
    """,
)
@click.argument("method", required=False)
@click.option("--release", metavar="NAME", help="Make the released weight NAME from first to last.")
@click.option("--data", required=True, type=click.Path(), help="Folder of pictures, read with its subfolders.")
@click.option("-o", "--out", type=click.Path(file_okay=False), help="Folder of the run.  [default: runs/NAME]")
@click.option("--model", metavar="NAME", shell_complete=complete_weights, help="Architecture to train.")
@click.option("--recipe", metavar="NAME", help="Settings by name, or a .toml file.")
@click.option("-k", type=click.IntRange(min=1), help="Number of parts to learn (partformer, mpae).")
@click.option("--minutes", type=float, help="Budget of time, over all pieces of a resumed run.")
@click.option("--steps", type=int, help="Budget of steps, instead of minutes.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--batch-size", type=int, help="Pictures in a step.")
@click.option("--lr", type=float, help="Highest learning rate.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="bf16: faster where the machine has it.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, order and sampling.")
@click.option("--limit", type=int, help="Use at most so many pictures.")
@click.option("--threads", type=int, help="CPU threads.")
def train(
    method: str | None,
    release: str | None,
    data: str,
    out: str | None,
    model: str | None,
    recipe: str | None,
    k: int | None,
    minutes: float | None,
    steps: int | None,
    resume: bool,
    batch_size: int | None,
    lr: float | None,
    precision: str | None,
    seed: int,
    limit: int | None,
    threads: int | None,
) -> None:
    """Train a model by METHOD on a folder of pictures, within a budget of minutes or steps."""
    if (method is None) == (release is None):
        raise click.UsageError("Name a method, for example 'partzoo train part', or --release NAME.")
    budget = {"data": data, "minutes": minutes, "steps": steps, "resume": resume, "threads": threads}
    if release is not None:
        given = {
            "--model": model,
            "--recipe": recipe,
            "-k": k,
            "--batch-size": batch_size,
            "--lr": lr,
            "--precision": precision,
            "--limit": limit,
        }
        if fixed := [name for name, value in given.items() if value is not None]:
            raise click.UsageError(f"{', '.join(fixed)} cannot change with --release: the recipe states it.")
        from partzoo.train.release import release as make

        record = make(release, out=out or str(Path("runs", release)), **budget)
        files = ", ".join(file.path for file in record.files)
        click.echo(f"Released {record.name}: {files}; its record is in weights_manifest.json.")
        return
    from partzoo.train.run import train as run

    folder = Path(out or Path("runs", model or method))
    loop = {"batch_size": batch_size, "lr": lr, "precision": precision}
    _, state = run(method, out=folder, model=model, recipe=recipe, k=k, seed=seed, limit=limit, **budget, **loop)
    done = f"{state.step:,} steps and {state.pictures:,} pictures in {state.seconds / 60:.1f} minutes"
    if state.finished:
        click.echo(f"Trained for {done}. Load it with partzoo.load({str(folder / 'model.safetensors')!r}).")
    else:
        click.echo(f"Stopped after {done}. Go on with the same command and --resume.")
