"""Keep a script's results as rows of a CSV file, and print them as Markdown tables."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from partzoo.evaluate import report


def read(file: Path) -> list[dict[str, str]]:
    """Read the rows of a table; return none if the table does not exist."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def append(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to a table, with a header if it is new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return report.markdown([head, ["---"] * len(head), *rows]) + "\n"
