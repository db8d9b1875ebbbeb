"""The command ``partzoo eval``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from partzoo.cli.command import Command, print_json, table
from partzoo.cli.options import (
    Numbers,
    background_option,
    complete_weights,
    device_option,
    json_option,
    strict_option,
)
from partzoo.errors import PartzooError, counted

if TYPE_CHECKING:
    from partzoo.progress import ProgressCallback


def complete_protocols(_: click.Context, __: click.Parameter, start: str) -> list[str]:
    """Return the names of the protocols that begin with the text."""
    from partzoo.evaluate.protocols import names

    return [name for name in names() if name.startswith(start)]


@click.command(
    "eval",
    cls=Command,
    short_help="Measure a model by a protocol.",
    epilog="""
    \b
    Examples:
      partzoo eval patchresnet14.tin --protocol faces68 --data faces/ -k 8 -o result.json
      partzoo eval part-vitt --protocol tiny-imagenet --data tiny-imagenet/ --seeds 3
      partzoo eval foreground-lite0.masks --protocol ecssd --data masks/
      partzoo eval colour-position --protocol faces68 --data faces/
      partzoo eval runs/spatial/model.safetensors --protocol cifar-100 --data cifar/ --patches 0,9
      partzoo eval partformer-resnet18.faces-k8 --protocol faces68 --data faces/ -k own --rotate 15
      partzoo eval partformer-cub/ --protocol cub-partformer --data CUB_200_2011/ -k own --category 1
      partzoo eval --all --protocol faces68 --data faces/ -o results/
    \b
    MODEL: a name or file as for --model elsewhere, a foreground model (ecssd, pascal-s, horses), or a floor:
    random-weights, colour-position, centred-box.
    A result that --out already holds is not measured again, so a stopped --all continues.
    Images and annotations that cannot be used are skipped, and listed under "failed" in the result,
    which is measured again by the next run. The exit code is then 1.
    The protocols, and where their data comes from: docs/protocols.md
    """,
)
@click.argument("model", required=False, shell_complete=complete_weights)
@click.option(
    "--all", "everything", is_flag=True, help="Measure all released weights and floors; write OUT/PROTOCOL.csv."
)
@click.option("--protocol", required=True, shell_complete=complete_protocols, help="Protocol, such as faces68.")
@click.option("--data", required=True, type=click.Path(), help="Folder of the protocol's data.")
@click.option(
    "-k",
    type=Numbers(word="own"),
    show_default="4,8,16",
    help="Numbers of parts; own: the number that the part model has.",
)
@click.option("--seeds", default=5, show_default=True, help="Number of random seeds.")
@click.option("--split", help="Split to report on.  [default: set by the protocol]")
@background_option
@click.option("--size", type=int, help="Longer side of the image at working size, in pixels.")
@click.option("--refine/--no-refine", default=True, show_default=True, help="Align parts with the images' edges.")
@click.option("--rotate", type=float, default=0, help="Angle in degrees by which to rotate the reported images.")
@click.option("--category", metavar="CLASS", help="Use one class alone, by number or name: 1 for CUB-1 (cub).")
@click.option("--patches", type=Numbers(least=0), help="Probe on the image and n patches, such as 0,1,9 (spatial).")
@click.option("--augment", is_flag=True, help="With --patches: train the probe on warped images.")
@click.option("--limit", type=int, help="Use at most this many images of each split.")
@device_option
@click.option("-o", "--out", type=click.Path(), help="JSON file to write; with --all a folder.  [with --all: results]")
@strict_option
@json_option
def evaluate(
    model: str | None,
    everything: bool,
    protocol: str,
    data: str,
    k: list[int | None] | None,
    seeds: int,
    split: str | None,
    background: str,
    size: int | None,
    refine: bool,
    rotate: float,
    category: str | None,
    patches: list[int] | None,
    augment: bool,
    limit: int | None,
    device: str | None,
    out: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Evaluate MODEL under a protocol: its parts against landmarks or masks, or its features against classes."""
    if (model is None) != everything:
        raise click.UsageError("Name a model, or --all for every released weight.")
    from partzoo.evaluate import run

    chosen: dict[str, Any] = {"k": k, "seeds": seeds, "split": split, "limit": limit, "strict": strict}
    chosen["device"] = device
    with _progress(quiet=as_json) as progress:
        if everything:
            given = (background, size, refine, rotate, category, patches, augment)
            if given != ("auto", None, True, 0, None, None, False):
                only = "--background, --size, --no-refine, --rotate, --category, --patches and --augment"
                raise click.UsageError(f"{only} cannot be combined with --all.")
            file, skipped = run.evaluate_all(protocol, data, out or "results", progress=progress, **chosen)
        else:
            record = run.evaluate(
                str(model), protocol, data, background=background, size=size, refine=refine, rotate=rotate,
                category=category, patches=patches, augment=augment, out=out, progress=progress, **chosen,
            )  # fmt: skip
    if everything:
        print_json({"output": str(file), "failed": skipped}) if as_json else click.echo(f"Written: {file}")
    else:
        skipped = [each["path"] for each in record.get("failed", ())]
        print_json(record) if as_json else _show(record)
    if skipped:
        of_what = "models, images and annotations" if everything else "images and annotations"
        raise PartzooError(
            f"{len(skipped)} of the {of_what} could not be used and were skipped. Their names are above "
            "and under 'failed' in the result."
        )


def _show(record: dict[str, Any]) -> None:
    """Print the figures of a record."""
    from partzoo.evaluate.report import label, rows, shown

    lines = []
    for row in rows([record]):
        spread = "" if row.std is None else shown(row.metric, row.std)
        lines.append((row.k or "", label(row.metric), shown(row.metric, row.mean), spread, row.seeds))
    failed = record.get("failed")
    skipped = f" ({len(failed)} skipped)" if failed else ""
    what = f"{record['model']}, {record['protocol']}, {record['split']} split"
    click.echo(f"{what}, {counted(record['images'], 'image')}{skipped}:")
    table(lines, ("k", "figure", "mean", "std", "seeds"))


@contextmanager
def _progress(quiet: bool) -> Iterator[ProgressCallback]:
    """Provide a progress callback that shows a bar for each stage of the work."""
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def report(what: str, done: int, of: int) -> None:
        if what not in bars:
            for bar in bars.values():
                bar.close()
            bars[what] = tqdm(total=of, desc=what, disable=True if quiet else None)
        bars[what].update(done - bars[what].n)

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()
