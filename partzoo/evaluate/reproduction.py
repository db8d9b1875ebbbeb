"""Reproduction cards, which set a paper's figure beside ours for every released weight and explain the gap."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from partzoo.errors import UsageError
from partzoo.evaluate.floors import RANDOM
from partzoo.evaluate.report import DEFAULT, OWN_FLOORS, Row, label, markdown, shown, titled
from partzoo.weights.manifest import WeightRecord

NOTES = Path(__file__).with_name("reproduction.toml")
HEAD = ("figure", "paper", "ours", "gap", "floor")
Results = Callable[[str], Sequence[Row]]


def notes(path: str | Path = NOTES) -> dict[str, Any]:
    """Read the handwritten notes: ``weights`` by name, and ``faces``, the papers' figures on images of faces."""
    return tomllib.loads(Path(path).read_text(encoding="utf-8"))


def measured() -> set[str]:
    """Return the weights whose cards take figures from ``results/``, which must therefore contain them."""
    return {
        name
        for name, card in notes()["weights"].items()
        if any(figure["from"] != "manifest" for figure in card["figures"])
    }


def own_figures(record: WeightRecord) -> dict[str, Any]:
    """Return a record's figures by name, leaving out floors."""
    return {
        each["name"]: each["value"]
        for each in record.metrics
        if not (each["name"].startswith("constant_") or each["name"].endswith("_random_weights"))
    }


def cards(records: Mapping[str, WeightRecord], results: Results, written: Mapping[str, Any]) -> str:
    """Write a Markdown section for all released weights; those without a card show figures without a comparison.

    Args:
        records: records of the manifest, by name.
        results: figures of each protocol, by its name.
        written: result of :func:`notes`, which must have entries for no other weights.

    Raises:
        UsageError: a card names unknown weights, or a figure that a card needs is missing.
    """
    cards = written["weights"]
    if strange := [name for name in cards if name not in records]:
        raise UsageError(
            f'{strange[0]} has a card and is not released: correct [weights."{strange[0]}"] in {NOTES.name}.'
        )
    return "\n\n".join(_card(each, cards.get(name) or _plain(each), results) for name, each in records.items())


def faces(results: Results, written: Mapping[str, Any], k: int = 8) -> str:
    """Make a table that compares our figures on faces68 with the papers' figures on their data.

    Args:
        results, written: as in :func:`cards`.
        k: number of parts.
    """
    metrics = ("nmi5", "ari5", "nme")
    head = ["what", "images", "NMI", "ARI", "NME", "from"]
    lines = [head, ["---"] * len(head)]
    for each in written["faces"]:
        if each["k"] == k:
            figures = [f"{each[name]:.2f}" for name in ("nmi", "ari", "nme")]
            lines.append([each["method"], each["data"], *figures, each["source"]])
    ours = [row for row in results("faces68") if row.k == k and row.setting == DEFAULT]
    for model in dict.fromkeys(row.model for row in ours):
        figures = [_value(_figure(ours, "faces68", model, metric, k)) for metric in metrics]
        lines.append([titled(model), "faces68", *figures, "`results/faces68.csv`"])
    return markdown(lines)


def _plain(record: WeightRecord) -> dict[str, Any]:
    """Make the card for weights that the notes do not mention."""
    figures = [{"from": "manifest", "metric": name} for name in own_figures(record)]
    return {"paper": "", "setup": "", "why": "", "figures": figures}


def _card(record: WeightRecord, card: Mapping[str, Any], results: Results) -> str:
    compared = [_compared(record, asked, results) for asked in card["figures"]]
    lines = [HEAD, ["---"] * len(HEAD), *(cells for cells, _ in compared)]
    shown_columns = [column for column in range(len(HEAD)) if any(cells[column] for cells, _ in compared)]
    budget = record.budget
    minutes, images = budget.get("minutes"), budget.get("images_seen")
    commands = dict.fromkeys([record.command, *(command for _, command in compared)])
    source, trained = "No paper reports this model.", "The weights were converted, not trained here."
    if card["paper"]:
        source = f"The paper's figures are from {card['paper']}, for this setting: {card['setup']}."
    if images:
        trained = f"Our weights saw {images:,} images in {minutes} minutes of training, with seed {record.seed}."
    sections = (
        f"### `{record.name}`",
        f"- {source}\n- {trained}\n- Training data: {record.data}.",
        markdown([line[column] for column in shown_columns] for line in lines),
        " ".join(card["why"].split()),
        "```bash\n" + "\n".join(commands) + "\n```",
    )
    return "\n\n".join(filter(None, sections))


def _compared(record: WeightRecord, asked: Mapping[str, Any], results: Results) -> tuple[list[str], str]:
    """Return the table cells for one figure, in the order of ``HEAD``, and the command that measured ours."""
    metric, protocol, k = asked["metric"], asked["from"], asked.get("k")
    if protocol == "manifest":
        found = {each["name"]: each for each in record.metrics}
        if metric not in found:
            raise UsageError(f"The manifest has no {metric} of {record.name}: correct {NOTES.name}.")
        ours, floor = found[metric], found.get(f"{metric}_random_weights")
        name = f"{label(metric)}: {ours['protocol']}"
        return [name, "", f"{ours['value']:.4g}", "", f"{floor['value']:.4g}" if floor else ""], ours["command"]
    rows = results(protocol)
    row = _figure(rows, protocol, record.name, metric, k, asked.get("setting", DEFAULT))
    name, paper, gap = ", ".join([label(metric), protocol, *([f"K = {k}"] if k else [])]), "", ""
    if "paper" in asked:
        difference = row.mean - asked["paper"]
        paper, gap = f"{asked['paper']:.2f}", "+" * (difference > 0) + shown(metric, difference)
    return [name, paper, _value(row), gap, _floor(rows, row)], row.command


def _figure(
    rows: Sequence[Row], protocol: str, model: str, metric: str, k: int | None = None, setting: str = DEFAULT
) -> Row:
    for row in rows:
        if (row.model, row.setting, row.k, row.metric) == (model, setting, k, metric):
            return row
    asked = f"{metric}{f' at K = {k}' if k else ''} of {model}, setting {setting!r}"
    raise UsageError(f"results/{protocol}.csv has no {asked}. Run: partzoo eval --all --protocol {protocol} --data DIR")


def _value(row: Row) -> str:
    """Format a figure with its deviation."""
    return shown(row.metric, row.mean) + (f" ± {shown(row.metric, row.std)}" if row.std is not None else "")


def _floor(rows: Sequence[Row], row: Row) -> str:
    """Return the floor of a figure: its constant prediction, or the figure of random weights."""
    wanted = [(row.model, prefix + row.metric, prefix.strip("_")) for prefix in OWN_FLOORS]
    for model, metric, name in [*wanted, (RANDOM, row.metric, RANDOM)]:
        for other in rows:
            if (other.model, other.metric, other.k) == (model, metric, row.k) and other.setting == DEFAULT:
                return f"{shown(row.metric, other.mean)} ({name})"
    return ""
