"""The command ``partzoo stages``."""

from __future__ import annotations

from typing import Any

import click

from partzoo.cli.command import Command, table
from partzoo.cli.options import Numbers, complete_weights, device_option, strict_option, threads_range
from partzoo.errors import counted
from partzoo.files import expand_user
from partzoo.locks import locked
from partzoo.places import made_folder


@click.command(
    cls=Command,
    short_help="Finetune on sleep stages with few subjects.",
    epilog="""
    \b
    Examples:
      partzoo train part-signals --data challenge-2018/ -o runs/eeg
      partzoo stages runs/eeg/model.safetensors --data challenge-2018/ -o runs/stages
      partzoo stages runs/eeg/model.safetensors --data challenge-2018/ --subjects 10 --seeds 1 -o runs/ten
    \b
    The folder receives stages.csv, with a row for each training run, and the trained models.
    Nights that cannot be read are skipped and listed in failed.csv there; the exit code is then 1.
    A stopped run continues with the same command.
    """,
)
@click.argument("model", shell_complete=complete_weights)
@click.option("--data", required=True, type=click.Path(), help="Folder of the PhysioNet challenge of 2018.")
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Folder for the results.")
@click.option(
    "--subjects",
    type=Numbers(word="all"),
    default="10,50,100,all",
    show_default=True,
    help="Numbers of subjects to finetune on.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Number of random seeds.")
@click.option("--scratch/--no-scratch", default=True, show_default=True, help="Also train from random weights.")
@click.option(
    "--test-subjects", type=click.IntRange(min=1), default=200, show_default=True, help="Number of held-out subjects."
)
@click.option("--windows", type=click.IntRange(min=1), help="Number of labelled windows of each night.  [default: all]")
@click.option("--epochs", type=float, help="Length of each training run in epochs.  [default: 100]")
@click.option("--steps", type=int, help="Length of each training run in steps, instead of epochs.")
@click.option("--batch-size", type=int, help="Number of windows in a step.  [default: 128]")
@click.option("--lr", type=float, help="Highest learning rate.  [default: 0.0005]")
@click.option("--cache", default="", help="Folder for prepared nights.  [default: in partzoo's cache]")
@device_option
@click.option("--threads", type=threads_range, help="Number of CPU threads.")
@strict_option
def stages(
    model: str,
    data: str,
    out: str,
    subjects: list[int | None],
    seeds: int,
    scratch: bool,
    test_subjects: int,
    windows: int | None,
    cache: str,
    device: str | None,
    threads: int | None,
    strict: bool,
    **loop: Any,
) -> None:
    """Finetune MODEL, pretrained on signals, on sleep stages of few subjects; report Cohen's kappa on held-out ones."""
    import torch

    from partzoo.cli.failures import Failures
    from partzoo.train.stages import means, sample_efficiency

    if threads:
        torch.set_num_threads(threads)

    def report(row: dict[str, Any]) -> None:
        what = f"{counted(int(row['subjects']), 'subject')}, seed {row['seed']}, {row['initial']}"
        click.echo(f"{what}: kappa {float(row['kappa']):.3f}", err=True)

    chosen: dict[str, Any] = {
        "subjects": subjects,
        "seeds": seeds,
        "scratch": scratch,
        "test_subjects": test_subjects,
        "windows": windows,
    }
    folder = expand_user(out)
    failures: Failures[str] = Failures(None, str, what="nights", strict=strict, folder=folder)
    with made_folder(folder):
        with locked(folder):
            failures.begin()
        rows = sample_efficiency(
            model, data, out, **chosen, cache=cache, progress=report, bar=True, device=device,
            pass_over=failures.pass_over, **loop,
        )  # fmt: skip
    shown = [
        (each["subjects"], each["initial"], f"{each['kappa']:.3f}",
         "" if each["std"] is None else f"{each['std']:.3f}", each["seeds"])
        for each in means(rows)
    ]  # fmt: skip
    table(shown, ("subjects", "initial", "kappa", "std", "seeds"))
    failures.check()
