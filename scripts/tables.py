"""Write the sections of README and docs that show the manifest, ``results/`` and the protocols.

Run it with ``python scripts/tables.py``. The sections are between
``<!-- NAME: written by python scripts/tables.py -->`` and ``<!-- end of NAME -->``.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from partzoo.errors import UsageError
from partzoo.evaluate import protocols, reproduction
from partzoo.evaluate.floors import BOX, FLOORS
from partzoo.evaluate.protocols.base import LandmarkError, PartProtocol
from partzoo.evaluate.protocols.classification import ClassProtocol
from partzoo.evaluate.report import DEFAULT, Row, markdown, read_csv, shown, table
from partzoo.models.registry import find
from partzoo.weights.manifest import NAME, WeightRecord, manifest

ROOT = Path(__file__).parents[1]
HEAD = ("weights", "trained on", "labels used", "training", "figures (floor)", "file")
OVERVIEW = ("weights", "method", "trained on", "labels used", "measure", "value (floor)", "MB")
METHODS = {  # maps the family of an architecture to the method that trained its weights
    "encoder": "classifier",
    "foreground": "foreground",
    "part": "PART",
    "partformer": "PartFormer",
    "mpae": "MPAE",
    "spatial": "Spatial Reasoning",
}
HEADLINES = {  # maps a record's metric to its name in the README; the first that a record has is its headline
    "ecssd_iou": "foreground IoU on ECSSD, % ↑",
    "nmi5": "NMI of five face landmarks, % ↑",
    "distance": "position error, patches ↓",
    "knn": "kNN accuracy on Tiny-ImageNet, % ↑",
    "top1": "top-1 accuracy on {}, % ↑",
}
FACES = ("nmi5", "ari5", "nmi68", "ari68", "nme")
FACES_PEOPLE = ("nmi5", "ari5", "fg_nmi5", "fg_ari5", "nme")
FACES_MORE = ("fg_nmi5", "fg_ari5", "fg_nmi68", "fg_ari68", "presence", "stability_nmi", "stability_ari")
PROBES = ("knn", "linear", "linear_sgd")
POSITIONS = ("mse_x", "mse_y", "distance", "antisymmetry")
RELATIONS = ("same", "shift_error")
FOREGROUND = ("iou", "accuracy", "max_f", "max_f_selfmask", "mae", "boundary_f", "failures", "failure_auroc")
LABELLED = ("labelled_nmi", "labelled_ari", "fg_nmi", "fg_ari", "mirrored", "foreground_iou")
MASKS = ("ecssd", "pascal-s", "horses")
LABEL_MAPS = ("celebamask", "clothing", "cars")
SCALES = {
    "inter-ocular": "the distance between points 0 and 1",
    "box": "the box's width and height",
    "edge": "the frame's side",
    "diagonal": "the box's diagonal",
}


class Sources:
    """The files that the pages are written from, read on first use.

    Args:
        root: clone of the repository.
    """

    def __init__(self, root: Path) -> None:
        self.weights = manifest(root / NAME)
        self.results: Callable[[str], list[Row]] = cache(lambda protocol: self._results(root, protocol))
        self.root = root

    def bench(self) -> dict:
        """The record of ``partzoo bench``, read on first use."""
        return json.loads((self.root / "results" / "bench.json").read_text(encoding="utf-8"))

    def _results(self, root: Path, protocol: str) -> list[Row]:
        rows = read_csv(root / "results" / f"{protocol}.csv")
        measured = {row.model for row in rows}
        complete = protocol in ("faces68", "tiny-imagenet")  # protocols by which every released weight is measured
        expected = [name for name in (*self.weights, *FLOORS) if complete and name not in reproduction.unmeasured()]
        if missing := [name for name in expected if name not in measured]:
            raise UsageError(
                f"results/{protocol}.csv lacks {', '.join(missing)}. "
                f"Run: partzoo eval --all --protocol {protocol} --data DIR"
            )
        return rows


def models(records: dict[str, WeightRecord]) -> str:
    """Return the table of models, in Markdown."""
    if not records:
        return "No weights are released yet."
    return markdown([HEAD, ["---"] * len(HEAD), *(_row(record) for record in records.values())])


def overview(records: Mapping[str, WeightRecord], results: Callable[[str], Sequence[Row]]) -> str:
    """Return the README's table: one headline figure for each set of weights with more than a training loss."""
    named = {record.name: [metric["name"] for metric in record.metrics] for record in records.values()}
    measured = [record for record in records.values() if set(HEADLINES) & set(named[record.name])]
    return markdown([OVERVIEW, ["---"] * len(OVERVIEW), *(_headline(record, results) for record in measured)])


def ordinary(path: Path) -> str:
    """Write the README's sentence about a reader's verdicts on the ordinary photographs."""
    with path.open(encoding="utf-8", newline="") as file:
        verdicts = list(csv.DictReader(file))
    foreground, parts = (sum(int(line[name]) for line in verdicts) for name in ("foreground", "parts"))
    link = f"[ordinary photographs](docs/discovery.md#{len(verdicts)}-ordinary-photographs)"
    return (
        f"We tested the default settings on {len(verdicts)} {link}.\n"
        f"The foreground was right on {foreground} of them, and the parts were sensible on {parts}. "
        "Known limits and failures:"
    )


def results(rows: Sequence[Row], *columns: Sequence[str], k: int | None = None, settings: bool = True) -> str:
    """Return the tables of one protocol, one for each group of columns, and a line on what was measured and how."""
    rows = [row for row in rows if (k is None or row.k == k) and (settings or row.setting == DEFAULT)]
    images = " or ".join(f"{count:,}" for count in sorted({row.images for row in rows}))
    measured = f"{images} images" + (f" with K = {k}" if k else "")
    said = f"The figures were measured on {measured}. They are means ± sample standard deviations over the seeds."
    return "\n\n".join([*(table(rows, group) for group in columns), said])


def intervals(rows: Sequence[Row], metrics: Sequence[str], k: int) -> str:
    """Return the table of how far the figures of one K would move with other people in the images."""
    return table([row for row in rows if row.k == k], metrics, intervals=True)


def commands(*groups: Iterable[Row]) -> str:
    """Return the commands that measured the figures, as a code block."""
    lines = dict.fromkeys(row.command for rows in groups for row in rows)
    return "\n".join(["```bash", *lines, "```"])


def part_protocols() -> str:
    """Return the table of part protocols: ground truth, grid of the maps, computation of errors."""
    head = ("name", "true labels", "maps are read on", "NME", "fitted on, reported on", "source")
    found = [each for each in map(protocols.get, protocols.names()) if isinstance(each, PartProtocol)]
    rows = [
        (
            f"`{each.name}`",
            f"{each.truths} landmarks" if each.error else f"masks with {each.truths} labels",
            f"{each.grid} x {each.grid} cells" if each.grid else "the pixels of the image",
            _error(each.error) if each.error else "",
            f"{each.fit}, {each.report}",
            each.source,
        )
        for each in found
    ]
    return "\n\n".join([markdown([head, ["---"] * len(head), *rows]), _rules(found)])


def class_protocols() -> str:
    """Return the table of protocols that classify images."""
    head = ("name", "true labels", "images", "fitted on, reported on", "source")
    found = [each for each in map(protocols.get, protocols.names()) if isinstance(each, ClassProtocol)]
    rows = [
        (
            f"`{each.name}`",
            f"{each.classes} classes",
            f"{each.side} x {each.side}",
            f"{each.train}, {each.test}",
            each.source,
        )
        for each in found
    ]
    return "\n\n".join([markdown([head, ["---"] * len(head), *rows]), _rules(found)])


def other_protocols() -> str:
    """Return the table of protocols that measure finetuned models."""
    found = map(protocols.get, protocols.names())
    return _rules((each for each in found if not isinstance(each, PartProtocol | ClassProtocol)), source=True)


def bench(record: dict) -> str:
    """Return the table of the benchmark's ratios."""
    from partzoo.bench.report import markdown as ratios

    return ratios(record)


def _masks(protocol: str, of: Sources) -> str:
    return results(of.results(protocol), FOREGROUND)


def _label_maps(protocol: str, of: Sources) -> str:
    return results(of.results(protocol), LABELLED)


# Maps each page to its sections by name, and each section to the function that writes it.
PAGES: dict[str, dict[str, Callable[[Sources], str]]] = {
    "README.md": {
        "overview": lambda of: overview(of.weights, of.results),
        "ordinary": lambda of: ordinary(of.root / "results" / "ordinary.csv"),
    },
    "docs/models.md": {"models": lambda of: models(of.weights)},
    "docs/protocols.md": {
        "part protocols": lambda _: part_protocols(),
        "class protocols": lambda _: class_protocols(),
        "other protocols": lambda _: other_protocols(),
    },
    "docs/evaluation.md": {
        "floors": lambda _: "\n".join(f"- `{name}`: {what}." for name, what in FLOORS.items()),
        "faces68": lambda of: results(of.results("faces68"), FACES, FACES_MORE),
        "people": lambda of: intervals(of.results("faces68"), FACES_PEOPLE, k=8),
        "tiny-imagenet": lambda of: results(of.results("tiny-imagenet"), PROBES, POSITIONS, RELATIONS),
        "commands": lambda of: commands(of.results("faces68"), of.results("tiny-imagenet")),
    },
    "docs/reproduction.md": {
        "cards": lambda of: reproduction.cards(of.weights, of.results, reproduction.notes()),
        "faces": lambda of: reproduction.faces(of.results, reproduction.notes()),
    },
    "docs/discovery.md": {
        **{name: partial(_masks, name) for name in MASKS},
        **{name: partial(_label_maps, name) for name in LABEL_MAPS},
        "commands": lambda of: commands(*map(of.results, (*MASKS, *LABEL_MAPS))),
    },
    "docs/speed.md": {"bench": lambda of: bench(of.bench())},
}


def filled(text: str, name: str, content: str) -> str:
    """Replace the content between the marks of this name in a text.

    Raises:
        ValueError: the text does not have each mark exactly once.
    """
    begin, end = f"<!-- {name}: written by python scripts/tables.py -->", f"<!-- end of {name} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    if text.count(begin) != 1 or rest.count(end) != 1:
        raise ValueError(f"The page lacks {begin} or {end}, or has it twice.")
    return f"{before}{begin}\n{content}\n{end}{after}"


def page(name: str, sources: Sources) -> str:
    """Return the text that a page should have."""
    text = (sources.root / name).read_text(encoding="utf-8")
    for mark, write in PAGES[name].items():
        text = filled(text, mark, write(sources))
    return text


def main(root: Path = ROOT) -> None:
    """Write every page of a clone, or none if any of them fails."""
    sources = Sources(root)
    texts = {name: page(name, sources) for name in PAGES}
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")


def _row(record: WeightRecord) -> list[str]:
    budget = record.budget
    values = {metric["name"]: metric["value"] for metric in record.metrics}
    figures = [
        f"{name} {_number(value)}" + (f" ({_number(values[floor])})" if (floor := _floor(name, values)) else "")
        for name, value in values.items()
        if not (name.startswith("constant_") or name.endswith("_random_weights"))
    ]
    return [
        f"`{record.name}`",
        f"{record.data}; terms: {record.terms}",
        _labels(record),
        f"{budget.get('minutes')} min, {budget.get('images_seen'):,} images" if budget.get("minutes") else "converted",
        ", ".join(figures),
        _size(record),
    ]


def _headline(record: WeightRecord, results: Callable[[str], Sequence[Row]]) -> list[str]:
    values = {metric["name"]: metric["value"] for metric in record.metrics}
    metric = next(name for name in HEADLINES if name in values)
    images = next(each["protocol"] for each in record.metrics if each["name"] == metric).partition(",")[0]
    family, least = find(record.architecture).family, _least(metric, record, values, results)
    return [
        f"`{record.name}`",
        METHODS.get(family, family),
        re.split(r"; |, (?=\d)", record.data)[0],
        _labels(record),
        HEADLINES[metric].format(images),
        f"{shown(metric, values[metric])} ({shown(metric, least)})",
        f"{record.bytes / 1e6:.1f}" + " (bundled)" * record.bundled,
    ]


def _least(metric: str, record: WeightRecord, values: Mapping[str, float], results: Callable) -> float:
    """Return the headline's floor: the best of the floors, which need no training."""
    if metric == "ecssd_iou":
        return next(row.mean for row in results("ecssd") if (row.model, row.metric) == (BOX, "iou"))
    if metric == "nmi5":
        found = (row for row in results("faces68") if (row.metric, row.k, row.setting) == (metric, 8, DEFAULT))
        return max(row.mean for row in found if row.model in FLOORS)
    floor = _floor(metric, values)
    return values[floor] if floor else 100 / record.config["classes"]


def _labels(record: WeightRecord) -> str:
    return " and ".join(["classes"] * record.labels_used + ["masks"] * record.masks_used) or "none"


def _size(record: WeightRecord) -> str:
    place = "in the package" if record.bundled else record.hub["repo"] if record.hub else "`checkpoints/`"
    return f"{record.bytes / 1e6:.1f} MB, {place}"


def _floor(name: str, values: dict[str, float]) -> str | None:
    """Return the metric that is the floor of another one."""
    return next((floor for floor in (f"constant_{name}", f"{name}_random_weights") if floor in values), None)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _error(rules: LandmarkError) -> str:
    fitted = "standardized, no intercept" if rules.standardize else "least squares with intercept"
    absent = f"; a part whose map is at most {rules.active:g} is absent" if rules.active is not None else ""
    return f"{rules.centroids} centroids, {fitted}; divided by {SCALES[rules.scale]}{absent}"


def _rules(found: Iterable, source: bool = False) -> str:
    lines = (
        f"- **{each.name}**: {each.rules}" + f" *Source:* {each.source}." * source + f" *Data:* {each.get}"
        for each in found
    )
    return "\n".join(lines).replace("<", "\\<")


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        sys.exit(f"python scripts/tables.py: {error}")
    sys.stdout.write(f"Written: {', '.join(PAGES)}\n")
