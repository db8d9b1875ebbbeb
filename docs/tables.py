"""Writes the tables of ``README.md`` that come from ``weights_manifest.json``: ``python docs/tables.py``."""

from __future__ import annotations

import sys
from pathlib import Path

from partzoo.manifest import NAME, WeightRecord, manifest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- models: written by python docs/tables.py -->", "<!-- end of models -->"
HEAD = ("weights", "trained on", "labels", "training", "figures (floor)", "file")


def models(records: dict[str, WeightRecord]) -> str:
    """The table of models, in Markdown."""
    if not records:
        return "No weights are released yet."
    rows = [HEAD, ["---"] * len(HEAD), *(_row(record) for record in records.values())]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def filled(text: str, table: str) -> str:
    """A text with a table between the two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not text.count(END):
        raise ValueError(f"{README.name} lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _row(record: WeightRecord) -> list[str]:
    budget, data = record.budget, record.data.partition(", ")[0]
    place = "in the package" if record.bundled else record.hub["repo"] if record.hub else "`checkpoints/`"
    values = {metric["name"]: metric["value"] for metric in record.metrics}
    figures = [
        f"{name} {_number(value)}" + (f" ({_number(values[floor])})" if (floor := _floor(name, values)) else "")
        for name, value in values.items()
        if not (name.startswith("constant_") or name.endswith("_random_weights"))
    ]
    return [
        f"`{record.name}`",
        f"{data}; terms: {record.terms}",
        "yes" if record.labels_used else "no",
        f"{budget.get('minutes')} min, {budget.get('pictures_seen'):,} pictures",
        ", ".join(figures),
        f"{record.bytes / 1e6:.1f} MB, {place}",
    ]


def _floor(name: str, values: dict[str, float]) -> str | None:
    """The metric that is another one's floor."""
    return next((floor for floor in (f"constant_{name}", f"{name}_random_weights") if floor in values), None)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    records = manifest(ROOT / NAME)
    README.write_text(filled(README.read_text(encoding="utf-8"), models(records)), encoding="utf-8")
    sys.stdout.write(f"{README}: {len(records)} weights\n")
