"""The command ``partzoo fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from partzoo.cli.collection import learned
from partzoo.cli.command import Command, print_json
from partzoo.cli.finding import fitting_options
from partzoo.cli.options import json_option
from partzoo.errors import counted
from partzoo.locks import locked
from partzoo.places import check_apart, check_place


@click.command(
    cls=Command,
    short_help="Learn a vocabulary of parts from a collection.",
    epilog="""
    \b
    Examples:
      partzoo fit images/ -k 6 -o six.parts.safetensors
      partzoo fit "train-*.tar" -k 6 -o six.parts.safetensors
      partzoo discover "train-*.tar" --vocabulary six.parts.safetensors -o out/ --format parquet
    \b
    At most 500 images are used, drawn by their keys: their order does not matter.
    """,
)
@click.argument("source", type=click.Path())
@click.option("-o", "--out", type=click.Path(dir_okay=False), required=True, help="File to write: .safetensors.")
@fitting_options
@json_option
def fit(source: str, out: str, k: int | str | None, strict: bool, as_json: bool, **options: Any) -> None:
    """Learn a vocabulary of parts from SOURCE: a folder, a pattern, a list, COCO, tars or Parquet files."""
    check_place(Path(out))
    check_apart([out], [source, options["model"]])
    with locked(out):
        words = learned(source, k, options, strict=strict, quiet=as_json)
        words.save(out)
    if as_json:
        print_json({"output": out, "k": words.k})
    else:
        click.echo(f"{counted(words.k, 'part')}. Written: {out}")
