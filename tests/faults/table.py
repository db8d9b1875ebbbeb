"""The table of injected faults, and where it is kept."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "results" / "reliability.json"


@dataclass(frozen=True)
class Row:
    """What came of the faults of one area.

    Args:
        area: what was done to what, in words.
        injected: number of faults.
        required: least number of faults that the table asks for.
        outcomes: number of cases by outcome, such as ``{"whole": 990, "refused": 10, "read wrong": 0}``.
        broken: one sentence for each case that did not come out as it must.
        seconds: wall time.
    """

    area: str
    injected: int
    required: int
    outcomes: dict[str, int]
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether enough faults were injected and none did harm."""
        return not self.broken and self.injected >= self.required


def record(name: str, row: Row, command: str, path: Path = RECORDS) -> None:
    """Keep the row of one area, with the command that made it, in place of its former row."""
    records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    records[name] = {"command": command, **asdict(row)}
    path.write_text(json.dumps(dict(sorted(records.items())), indent=1) + "\n", encoding="utf-8")


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown."""
    lines = ["| area | injected | outcomes | broken |", "|---|---|---|---|"]
    for row in rows:
        outcomes = ", ".join(f"{name} {count:,}" for name, count in row.outcomes.items())
        lines.append(f"| {row.area} | {row.injected:,} | {outcomes} | {len(row.broken)} |")
    return "\n".join(lines) + "\n"
