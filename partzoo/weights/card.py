"""Generate the model card (``README.md``) in a model's folder from the weights' record."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from partzoo.weights.manifest import WeightRecord

BEGIN = "<!-- Written by partzoo; notes of your own are kept above and below this block. -->"
SEGMENTING = ("foreground", "mpae", "partformer")  # families of models that give maps of the image
END = "<!-- End of what partzoo has written. -->"


def kept_edits(new: str, path: Path) -> str:
    """Combine a new card with the text outside the generated block of the card at ``path``, if there is one.

    A card without exactly one generated block is kept whole below the new one. Bytes that are not UTF-8 become
    surrogates, which :func:`encoded` writes back as they were.
    """
    try:
        old = _decoded(path.read_bytes())
    except FileNotFoundError:
        return new
    if old.count(BEGIN) == old.count(END) == 1 and old.index(BEGIN) < old.index(END):
        block = new[new.index(BEGIN) : new.index(END)]
        return old[: old.index(BEGIN)] + block + old[old.index(END) :]
    rest = old.replace(BEGIN, "").replace(END, "").strip()
    return f"{new}\n{rest}\n" if rest else new


def encoded(text: str) -> bytes:
    """Encode a card as UTF-8, with the bytes that :func:`kept_edits` could not decode."""
    return text.encode("utf-8", "surrogateescape")


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("utf-16")
    return data.decode("utf-8", "surrogateescape")


def card(
    architecture: str,
    config: Any,
    record: WeightRecord | None = None,
    repo: str = "",
    family: str = "encoder",
) -> str:
    """Write the model card as Markdown with the Hub's front matter, which holds the scores as its ``model-index``.

    Args:
        architecture: registered name of the architecture.
        config: the model's configuration, a dataclass.
        record: record of the weights; without one the card states that nothing is recorded.
        repo: Hub repository for which the card is written; "" for a folder.
        family: family of the architecture, from which the Hub's task follows.
    """
    settings = json.dumps(dataclasses.asdict(config), indent=2)
    name = record.name if record is not None else architecture
    place = f"hf-hub:{repo}" if repo else "local-dir:FOLDER"
    parts = [
        f"---\n{_front_matter(name, family, record)}\n---",
        BEGIN,
        f"# {name}",
        f"`{architecture}` of partzoo, a model zoo for parts.",
        f'```python\nimport partzoo\n\nmodel = partzoo.load("{place}")\n```',
        *(_facts(record) if record is not None else ["Nothing is recorded about how these weights were made."]),
        f"## Configuration\n\n```json\n{settings}\n```",
        END,
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(name: str, family: str, record: WeightRecord | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    task = "image-segmentation" if family in SEGMENTING else "image-feature-extraction"
    known: dict[str, Any] = {}
    if record is not None:
        known["license"] = record.licence.lower()
    if record is not None and record.metrics:
        known["model_name"] = name
        known["eval_results"] = [
            EvalResult(
                task_type=task,
                dataset_type=measure["protocol"].split(",")[0],
                dataset_name=measure["protocol"],
                dataset_config=measure["protocol"],
                metric_type=measure["name"],
                metric_value=measure["value"],
            )
            for measure in record.metrics
        ]
    data = ModelCardData(library_name="partzoo", pipeline_tag=task, tags=["partzoo", "part-discovery"], **known)
    return data.to_yaml()


def facts(record: WeightRecord) -> dict[str, Any]:
    """Return how a record's weights were made: what is known of data, labels, recipe, seed, budget and parents."""
    budget = record.budget
    rows = {
        "data": record.data,
        "terms of the data": record.terms,
        "labels used in training": "yes" if record.labels_used else "no",
        "masks used in training": "yes" if record.masks_used else "no",
        "by": _flat(record.source) if record.source else "",
        "recipe": record.recipe,
        "seed": record.seed,
        "hardware": _flat(budget.get("hardware")),
        "minutes": budget.get("minutes"),
        "images seen": f"{budget['images_seen']:,}" if budget.get("images_seen") is not None else None,
        "started from": ", ".join(record.parents),
    }
    return {key: value for key, value in rows.items() if value not in (None, "")}


def _facts(record: WeightRecord) -> list[str]:
    made = _table(("", ""), list(facts(record).items()))
    scores = [(m["name"], _number(m["value"]), m["protocol"], f"`{m['command']}`") for m in record.metrics]
    return [
        f"## How it was made\n\n{made}\n\n```\n{record.command}\n```",
        "## Scores\n\n" + (_table(("metric", "value", "protocol", "command"), scores) if scores else "None yet."),
        "Licence of the weights: " + record.licence,
    ]


def _table(head: tuple, rows: list[tuple]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _flat(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items() if item not in (None, "", []))
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
