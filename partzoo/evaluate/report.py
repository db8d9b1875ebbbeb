"""Write results: a JSON record for each model, a long CSV for each protocol, and Markdown tables.

A record holds every run of one model under one setting::

    {"format": 1, "protocol": "faces68", "split": "report", "model": "part-vitt8.tin", "setting": "default",
     "images": 489, "failed": [], "command": "partzoo eval part-vitt8.tin --protocol faces68 --data DIR",
     "runs": [{"k": 8, "seed": 0, "metrics": {"nmi5": 27.1}}, ...]}

``failed`` lists the images and annotations that could not be used and do not count in the figures. ``k`` is null if
there are no parts. ``seed`` is null for figures without a seed, or over all seeds.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from partzoo.errors import UsageError
from partzoo.evaluate.floors import BOX, FLOORS
from partzoo.files import check_version, create_folder, expand_user, reading, write_aside

FORMAT = 1
DEFAULT = "default"
OWN_FLOORS = ("constant_", "random_", "regression_")
LOWER_IS_BETTER = ("nme", "mae", "failures", "mse", "distance", "antisymmetry", "shift_error")
NEITHER_IS_BETTER = ("presence",)
IN_PATCHES = ("mse_x", "mse_y", "distance", "antisymmetry")
WORDS = {
    "nmi": "NMI", "ari": "ARI", "nme": "NME", "iou": "IoU", "mse": "MSE", "knn": "kNN", "sgd": "(SGD)", "mae": "MAE",
    "f": "F", "auroc": "AUROC",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One figure, as one line of a CSV.

    Attributes:
        model: name of the weights, or one of ``FLOORS``.
        setting: what differs from the model's default use; ``DEFAULT`` if nothing does.
        k: number of parts, or None if there are none.
        metric: name of the figure.
        mean: mean over seeds, to six significant digits.
        std: sample standard deviation over seeds; None for a single value.
        low, high: bounds that contain the figure in 95 of 100 resamplings of the groups of images, means over seeds;
            None if there are no bounds.
        seeds: number of seeds; 1 for a figure without a seed, or over all seeds together.
        images: number of images that the figure was measured on.
        command: command that measured the figure.
        failed: number of images and annotations that could not be used and were skipped.
    """

    model: str
    setting: str
    k: int | None
    metric: str
    mean: float
    std: float | None
    low: float | None
    high: float | None
    seeds: int
    images: int
    command: str
    failed: int = 0

    @property
    def key(self) -> tuple[int, str, str]:
        """K, model and setting, which identify a line of a table."""
        return self.k or 0, self.model, self.setting


COLUMNS = tuple(field.name for field in fields(Row))


def rows(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the figures of one protocol's records: models by name, floors last, K ascending.

    Raises:
        UsageError: the records have a different format, more than one protocol or split, or a model twice.
    """
    records = sorted(records, key=lambda r: (r.get("model") in FLOORS, r.get("model"), r.get("setting")))
    for record in records:
        check_version(record.get("format"), FORMAT, f"The result of {record.get('model')!r}", UsageError)
    if strange := next((r for r in records if r.get("format") != FORMAT), None):
        raise UsageError(f"The result of {strange.get('model')!r} has format {strange.get('format')!r}, not {FORMAT}.")
    if len(kinds := {(r["protocol"], r["split"]) for r in records}) > 1:
        raise UsageError(f"A table needs results of one protocol and split, not of {sorted(kinds)}: sort them first.")
    names = [(r["model"], r["setting"]) for r in records]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"There are two results of {twice[0]}, setting {twice[1]!r}: remove one.")
    return [row for record in records for row in _rows(record)]


def write_csv(records: Iterable[Mapping[str, Any]], path: str | Path) -> list[Row]:
    """Write the figures of all records of one protocol, and return them; see :func:`rows`."""
    path, found = expand_user(path), rows(records)
    create_folder(path.parent)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *map(astuple, found)])
    with write_aside(path) as file:
        file.write(text.getvalue().encode())
    return found


def read_csv(path: str | Path) -> list[Row]:
    """Read a table that :func:`write_csv` wrote.

    Raises:
        UsageError: the file is missing, or is not such a table.
    """
    path = expand_user(path)
    remedy = f"run partzoo eval --all --protocol {path.stem} --data DIR"
    if not path.exists():
        raise UsageError(f"{path} is not there. {remedy}")
    with reading(path, UsageError, "is not a table of results", remedy):
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if newer := [name for name in reader.fieldnames or () if name not in COLUMNS]:
                raise UsageError(
                    f"{path} has the column {newer[0]!r}, which this partzoo does not know: it was written by a newer "
                    "version of partzoo, or by something else. Upgrade partzoo."
                )
            lines = list(reader)
        return [_row(line) for line in lines]


def table(figures: Sequence[Row], metrics: Sequence[str], *, intervals: bool = False) -> str:
    """Make a Markdown table: a line for each K, model and setting, floors last within a K, mean ± standard deviation.

    The best value of each K, floors included, is bold, and so are all values that look the same when rounded. A metric
    whose floor was measured under the same name with the prefix ``constant_`` or ``random_`` shows it in brackets.
    Columns without content (K where there are no parts, settings where all are the default) are left out. If images or
    annotations were skipped, their number follows the model's name.

    Args:
        figures: rows of one protocol; those without any of the metrics are left out.
        metrics: names of the metrics, one for each column.
        intervals: whether to show the bounds of each figure instead of its standard deviation.
    """
    cells = {(row.key, row.metric): row for row in figures}
    keys = list(dict.fromkeys(row.key for row in figures if row.metric in metrics))
    keys.sort(key=lambda key: (key[0], key[1] in FLOORS))
    best = {(k, metric): _best([c for (key, m), c in cells.items() if (key[0], m) == (k, metric)])
            for k in {key[0] for key in keys} for metric in metrics}  # fmt: skip
    columns = {"K": any(k for k, _, _ in keys), "setting": any(setting != DEFAULT for _, _, setting in keys)}
    head = ["model", *(name for name, show in columns.items() if show), *map(label, metrics), "seeds"]
    lines = [head, ["---"] * len(head)]
    for key in keys:
        k, model, setting = key
        said = [text for text, show in zip((str(k), setting), columns.values(), strict=True) if show]
        failed = max(row.failed for (its, _), row in cells.items() if its == key)
        values = [_cell(cells, key, metric, best[k, metric], intervals) for metric in metrics]
        seeds = max(cells[key, metric].seeds for metric in metrics if (key, metric) in cells)
        lines.append([titled(model) + (f" ({failed} skipped)" if failed else ""), *said, *values, str(seeds)])
    return markdown(lines)


def markdown(lines: Iterable[Iterable[str]]) -> str:
    """Join cells to the lines of a Markdown table; the caller supplies the separator as the second line."""
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def label(metric: str) -> str:
    """Return a metric's name in words, for example FG-NMI 5 for ``fg_nmi5``."""
    words = []
    for word in metric.removeprefix("fg_").split("_"):
        stem = word.rstrip("0123456789")
        words += [WORDS.get(stem, stem), word[len(stem) :]]
    return ("FG-" if metric.startswith("fg_") else "") + " ".join(filter(None, words))


def titled(model: str) -> str:
    """Return a model's name for a table, marked if it is a floor."""
    return f"floor: `{model}`" if model in FLOORS or model == BOX else f"`{model}`"


def shown(metric: str, value: float) -> str:
    """Format a figure for a table: one decimal, or two for errors in patches."""
    return f"{value:.{2 if metric in IN_PATCHES else 1}f}"


def _rows(record: Mapping[str, Any]) -> list[Row]:
    values: dict[tuple[int | None, str], dict[int | None, float]] = {}
    bounds: dict[tuple[int | None, str], list[list[float]]] = {}
    for run in sorted(record["runs"], key=lambda run: run["k"] or 0):
        for metric, value in run["metrics"].items():
            values.setdefault((run["k"], metric), {})[run["seed"]] = value
        for metric, value in run.get("intervals", {}).items():
            bounds.setdefault((run["k"], metric), []).append(value)
    found = []
    for (k, metric), by_seed in values.items():
        several = list(by_seed.values())
        around = [_rounded(statistics.fmean(each)) for each in zip(*bounds.get((k, metric), []), strict=True)]
        low, high = around or (None, None)
        found.append(
            Row(
                record["model"], record["setting"], k, metric,
                mean=_rounded(statistics.fmean(several)),
                std=_rounded(statistics.stdev(several)) if len(several) > 1 else None,
                low=low, high=high, seeds=len(several),
                images=record["images"], command=record["command"], failed=len(record.get("failed", ())),
            )
        )  # fmt: skip
    return found


def _row(line: Mapping[str, str]) -> Row:
    std, low, high = (float(line[name]) if line[name] else None for name in ("std", "low", "high"))
    return Row(
        line["model"], line["setting"], int(line["k"]) if line["k"] else None, line["metric"], float(line["mean"]),
        std, low, high, int(line["seeds"]), int(line["images"]), line["command"],
        int(line.get("failed", 0)),  # tables of earlier versions, which skipped nothing, lack it
    )  # fmt: skip


def _best(candidates: Sequence[Row]) -> str | None:
    """Return the best value as it is printed, or None if there is nothing to compare."""
    if len(candidates) < 2 or candidates[0].metric in NEITHER_IS_BETTER:
        return None
    metric = candidates[0].metric
    choose = min if metric.startswith(LOWER_IS_BETTER) else max
    return shown(metric, choose(row.mean for row in candidates))


def _cell(cells: Mapping[tuple[tuple, str], Row], key: tuple, metric: str, best: str | None, intervals: bool) -> str:
    row = cells.get((key, metric))
    floor = next((cells[key, name] for prefix in OWN_FLOORS if (key, name := prefix + metric) in cells), None)
    if row is None:
        return ""
    mean = shown(metric, row.mean)
    text = f"**{mean}**" if mean == best else mean
    if intervals:
        if row.low is None or row.high is None:
            return text
        return f"{text} [{shown(metric, row.low)}, {shown(metric, row.high)}]"
    text += f" ± {shown(metric, row.std)}" if row.std is not None else ""
    return text + (f" ({shown(metric, floor.mean)})" if floor else "")


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
