"""Write the generated tables in README and docs, from the manifest, ``results/`` and the protocols; and the record of
the architectures, ``partzoo/models/architectures.json``.

Run it with ``python scripts/tables.py``. The sections are between
``<!-- NAME: written by python scripts/tables.py -->`` and ``<!-- end of NAME -->``.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from partzoo.conversion.registry import readers
from partzoo.discovery.foreground import METHODS as FOREGROUND_METHODS
from partzoo.discovery.foreground import Method
from partzoo.errors import UsageError
from partzoo.evaluate import protocols, reproduction
from partzoo.evaluate.floors import BOX, FLOORS
from partzoo.evaluate.protocols.base import LandmarkError, PartProtocol
from partzoo.evaluate.protocols.classification import ClassProtocol
from partzoo.evaluate.protocols.taught import COUNTS
from partzoo.evaluate.report import DEFAULT, LOWER_IS_BETTER, Row, markdown, read_csv, shown, table
from partzoo.models import recorded
from partzoo.models.engines.recorded import recipes
from partzoo.models.registry import find
from partzoo.weights.manifest import NAME, WeightRecord, manifest, short_name

ROOT = Path(__file__).parents[1]
HEAD = ("weights", "trained on", "labels used", "training", "figures (floor)", "file")
OVERVIEW = ("weights", "method", "trained on", "labels used", "measure", "value (floor)", "MB")
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
TAUGHT = ("taught-celebamask", "taught-cars", "taught-clothing")
TAUGHT_FIGURES = tuple(f"{figure}_{count}" for figure in ("iou", "accuracy") for count in COUNTS)
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

    def faults(self) -> dict[str, dict]:
        """The record of ``python -m tests.faults --record`` by area, read on first use."""
        return json.loads((self.root / "results" / "reliability.json").read_text(encoding="utf-8"))

    def _results(self, root: Path, protocol: str) -> list[Row]:
        rows = read_csv(root / "results" / f"{protocol}.csv")
        measured = {row.model for row in rows}
        complete = protocol in ("faces68", "tiny-imagenet")  # whose figures all weights with cards need
        asked = (name for name in self.weights if name in reproduction.measured())
        expected = [*asked, *FLOORS] if complete else []
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
    """Return the README's table, which shows the figure with a headline from every record that has one."""
    rows = [
        _headline(record, metric, results)
        for record in records.values()
        for metric in record.metrics
        if "headline" in metric
    ]
    return markdown([OVERVIEW, ["---"] * len(OVERVIEW), *rows])


def foreground_methods(records: Mapping[str, WeightRecord]) -> str:
    """Return the table of values of ``background=``: methods without learned weights, and foreground models."""
    head = ("background", "foreground", "needs of the encoder")
    rows = [(f'`"{name}"`', each.summary, _needs(each)) for name, each in FOREGROUND_METHODS.items()]
    for record in records.values():
        if find(record.architecture).family == "foreground" and record.measured:
            rows.append(
                (f'`"{record.name}"`', f"Predict with a model. Training data: {short_name(record.data)}.", "nothing")
            )
    return markdown([head, ["---"] * len(head), *rows])


def conversions() -> str:
    """Return the table of checkpoints that ``convert`` reads."""
    head = ("method", "files", "architecture of the result")
    return markdown([head, ["---"] * len(head), *(row for each in readers() for row in each.READS)])


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
    """Return the table of how much the figures of one K would vary if the images showed different people."""
    return table([row for row in rows if row.k == k], metrics, intervals=True)


def commands(*groups: Iterable[Row]) -> str:
    """Return the commands that measured the figures, as a code block."""
    lines = dict.fromkeys(row.command for rows in groups for row in rows)
    return "\n".join(["```bash", *lines, "```"])


def faults(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of injected faults, and the commands that injected them."""
    head = ("area", "injected (required)", "outcomes", "broken", "minutes")
    rows = [
        (
            each["area"],
            f"{each['injected']:,} ({each['required']:,})",
            ", ".join(f"{name} {count:,}" for name, count in each["outcomes"].items()),
            str(len(each["broken"])),
            f"{each['seconds'] / 60:.0f}",
        )
        for each in records.values()
    ]
    lines = ["```bash", *(each["command"] for each in records.values()), "```"]
    return "\n".join([markdown([head, ["---"] * len(head), *rows]), "", *lines])


def part_protocols() -> str:
    """Return the table of part protocols, with their ground truth, map grid and error measure."""
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


def taught(results: Callable[[str], Sequence[Row]]) -> str:
    """Return the tables of taught parts with their commands, one for each protocol, with the floor in brackets."""
    texts = []
    for name in TAUGHT:
        commands = dict.fromkeys(row.command for row in results(name))
        texts += [f"`{name}`:", table(results(name), TAUGHT_FIGURES), "\n".join(["```bash", *commands, "```"])]
    return "\n\n".join(texts)


def bench(record: dict) -> str:
    """Return the table of the benchmark's ratios."""
    from partzoo.bench.report import markdown as ratios

    return ratios(record)


def low_precisions() -> str:
    """Return the table of how low precisions agree with float32."""
    head = ("weights", "engine", "`dtype`", "cosine", "same label", "chosen by `auto`")
    lines = [
        (f"`{each.name}`", engine, precision, f"{a.cosine:.4f}", f"{100 * a.same:.2f} %", "yes" if a.enough else "no")
        for each in recipes().values()
        for engine, found in each.agreement.items()
        for precision, a in found.items()
    ]
    return markdown([head, ["---"] * len(head), *lines])


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
        "methods": lambda of: foreground_methods(of.weights),
    },
    "docs/taught.md": {"taught": lambda of: taught(of.results)},
    "docs/convert.md": {"readers": lambda _: conversions()},
    "docs/reliability.md": {"faults": lambda of: faults(of.faults())},
    "docs/speed.md": {"bench": lambda of: bench(of.bench()), "int8": lambda _: low_precisions()},
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
        for name, value in reproduction.own_figures(record).items()
    ]
    return [
        f"`{record.name}`",
        f"{record.data}; terms: {record.terms}",
        _labels(record),
        f"{budget.get('minutes')} min, {budget.get('images_seen'):,} images" if "minutes" in budget else "converted",
        ", ".join(figures),
        _size(record),
    ]


def _headline(record: WeightRecord, metric: Mapping[str, Any], results: Callable[[str], Sequence[Row]]) -> list[str]:
    name, least = metric["name"], _least(metric, record, results)
    floor = "" if least is None else f" ({shown(name, least)})"
    return [
        f"`{record.name}`",
        record.method or find(record.architecture).family,
        short_name(record.data),
        _labels(record),
        metric["headline"],
        f"{shown(name, metric['value'])}{floor}",
        f"{record.bytes / 1e6:.1f}" + " (bundled)" * record.bundled,
    ]


def _least(metric: Mapping[str, Any], record: WeightRecord, results: Callable[[str], Sequence[Row]]) -> float | None:
    """Return the floor of a record's figure: the best of the floors, or None if none was measured.

    It is in the record or in the results of the protocol that the figure's ``protocol`` begins with, or is chance.
    """
    values = {each["name"]: each["value"] for each in record.metrics}
    if floor := _floor(metric["name"], values):
        return values[floor]
    protocol = metric["protocol"].partition(",")[0]
    if protocol in protocols.names():
        name = metric["name"].removeprefix(f"{protocol.replace('-', '_')}_")
        found = [
            row.mean
            for row in _rows_of(protocol, results)
            if (row.metric, row.k, row.setting) == (name, record.config.get("parts"), DEFAULT)
            and row.model in (*FLOORS, BOX)
        ]
        return (min if name.startswith(LOWER_IS_BETTER) else max)(found, default=None)
    return 100 / record.config["classes"] if metric["name"] == "top1" and record.config.get("classes") else None


def _rows_of(protocol: str, results: Callable[[str], Sequence[Row]]) -> Sequence[Row]:
    """Return the results of a protocol, or none if only releases were measured with it."""
    try:
        return results(protocol)
    except UsageError:
        return ()


def _needs(method: Method) -> str:
    """Return what a foreground method needs from the encoder."""
    if method.independent:
        return "nothing"
    return " and ".join(["features"] * method.features + ["an objectness head"] * method.objectness)


def _labels(record: WeightRecord) -> str:
    return " and ".join(["classes"] * record.labels_used + ["masks"] * record.masks_used) or "none"


def _size(record: WeightRecord) -> str:
    place = "in the package" if record.bundled else record.hub["repo"] if record.hub else "`checkpoints/`"
    return f"{record.bytes / 1e6:.1f} MB, {place}"


def _floor(name: str, values: dict[str, float]) -> str | None:
    """Return the metric that serves as the floor of this one."""
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
    recorded.FILE.write_text(json.dumps(recorded.to_json(), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"Written: {', '.join(PAGES)}, {recorded.FILE.name}\n")
