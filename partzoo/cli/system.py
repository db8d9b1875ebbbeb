"""The commands ``partzoo doctor`` and ``partzoo bench``."""

from __future__ import annotations

from pathlib import Path

import click

from partzoo.cli.command import Command, print_json
from partzoo.cli.options import device_option, json_option
from partzoo.places import check_place


@click.command(cls=Command, short_help="Check the installation.")
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Report versions, device, precision, caches and weights, and how to get what is missing.

    The exit code is 1 if something that partzoo needs is missing or damaged.
    """
    from partzoo.cli.diagnosis import examine, lines

    found = examine()
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(lines(found)))
    if found["problems"]:
        context.exit(1)


@click.command(
    cls=Command,
    short_help="Measure speed against named peers.",
    epilog="""
    \b
    Examples:
      partzoo bench                            every row: half an hour or so
      partzoo bench discover -o bench.json --plot bench.png
      partzoo bench --quick                    tiny inputs: shows that everything runs
      partzoo bench commands --against partzoo-0.1.0-py3-none-any.whl
      partzoo bench --baseline results/bench.json  exit code 1 if a row has become slower
    \b
    Rows: cold-load, features, discover, folder, engines, mpae, part-step, spatial-step, growth,
    commands (with --against)
    """,
)
@click.argument("rows", nargs=-1, metavar="[ROW]...")
@click.option("-o", "--out", type=click.Path(dir_okay=False), help="Write the record, with the hardware, as JSON.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw the record to a PNG, SVG or PDF file.")
@click.option("--repetitions", default=7, show_default=True, help="Number of paired runs; reports the median ratio.")
@click.option("--quick", is_flag=True, help="Use tiny models and inputs, and no targets.")
@click.option(
    "--against",
    type=click.Path(dir_okay=False),
    metavar="WHEEL",
    help="Wheel of another build, to time whole commands of both (row commands).",
)
@click.option(
    "--baseline",
    type=click.Path(dir_okay=False),
    metavar="JSON",
    help="Earlier record: if a ratio is more than a tenth worse than all of it, the exit code is 1.",
)
@device_option
@json_option
@click.pass_context
def bench(
    context: click.Context,
    rows: tuple[str, ...],
    out: str | None,
    plot: str | None,
    repetitions: int,
    quick: bool,
    against: str | None,
    baseline: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Measure speeds as ratios against named peers, side by side on this machine."""
    from partzoo.bench import run
    from partzoo.bench.baseline import read_record, slower

    earlier = read_record(baseline) if baseline else None
    if plot:
        from partzoo.bench.plot import check, draw

        check(plot)
        check_place(Path(plot))
    progress = None if as_json else click.echo
    record = run(rows or None, repetitions, out, quick=quick, progress=progress, device=device, against=against)
    if plot:
        draw(record, plot)
    if as_json:
        print_json(record)
    worse = slower(record, earlier) if earlier else []
    for sentence in worse:
        click.echo(f"Slower: {sentence}", err=True)
    if worse:
        context.exit(1)
