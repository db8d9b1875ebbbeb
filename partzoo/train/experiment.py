"""The folder of an experiment that trains several models: its settings, and a table with a row for each model."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from partzoo.errors import UsageError
from partzoo.files import parse_toml, reading, write_aside, write_if_changed
from partzoo.settings import changed, to_toml

SETTINGS = "settings.toml"


def keep_settings(out: Path, settings: Mapping[str, Any], growing: Collection[str] = ()) -> None:
    """Write an experiment's settings to its folder, or compare them with those that it has.

    Args:
        out: folder of the experiment.
        settings: values, and tables of values, as for :func:`partzoo.settings.to_toml`.
        growing: names of tables that later calls may add entries to.

    Raises:
        UsageError: the folder has other settings, which the message names, or they cannot be read.
        PartzooError: the folder cannot be written.
    """
    file = out / SETTINGS
    earlier = {}
    if file.exists():
        with reading(file, UsageError, "cannot be read", "choose another out="):
            earlier = parse_toml(file.read_text(encoding="utf-8"))
    if earlier:
        settings = {**settings, **{name: {**earlier.get(name, {}), **settings[name]} for name in growing}}
        before, after = _flat(earlier), _flat(tomllib.loads(to_toml(settings)))
        added = {name for name in after if name not in before and name.partition(".")[0] in growing}
        if found := [each for each in changed(before, after) if each[0] not in added]:
            changes = ", ".join(f"{name} was {one!r}, is {other!r}" for name, one, other in found)
            raise UsageError(f"{out} holds results of other settings ({changes}). Choose another folder with out=.")
    write_if_changed(file, to_toml(settings).encode())


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of settings and of their tables, by names such as ``loop.lr``."""
    tables = {name: content for name, content in settings.items() if isinstance(content, dict)}
    values = {name: value for name, value in settings.items() if name not in tables}
    return values | {f"{table}.{name}": value for table, content in tables.items() for name, value in content.items()}


def read_rows(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the complete rows of a table; none if there is no such file.

    Raises:
        UsageError: the file is not a table with these columns.
    """
    if not file.exists():
        return []
    with reading(file, UsageError, "cannot be read", "choose another out="):
        with file.open(newline="", encoding="utf-8") as opened:
            reader = csv.DictReader(opened)
            named, rows = tuple(reader.fieldnames or ()), list(reader)
    if named != tuple(columns):
        raise UsageError(
            f"{file} is not a table of this experiment by this version of partzoo. Choose another folder with out=."
        )
    return [row for row in rows if len(row) == len(columns) and None not in row.values()]


def write_rows(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table.

    Raises:
        PartzooError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with write_aside(file) as opened:
        opened.write(text.getvalue().encode())
