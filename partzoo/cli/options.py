"""Arguments and options that several commands have, and what the Tab key completes in them."""

from __future__ import annotations

import click

from partzoo.errors import PartzooError


def complete_weights(_: click.Context, __: click.Parameter, start: str) -> list[str]:
    """Names of released weights and their architectures. The manifest is read, torch is not imported."""
    from partzoo.manifest import manifest

    try:
        records = manifest().values()
    except PartzooError:
        return []
    names = {name for record in records for name in (record.architecture, record.name)}
    return sorted(name for name in names if name.startswith(start))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
pictures_argument = click.argument("images", type=click.Path(), nargs=-1, required=True, metavar="IMAGE...")
model_option = click.option(
    "--model",
    metavar="NAME",
    shell_complete=complete_weights,
    help="Model, weights file or folder; see 'partzoo list'.",
)
