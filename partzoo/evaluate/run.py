"""``partzoo eval``: a model, a protocol and its data become a record of figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from partzoo.discovery.factory import is_foreground_model, make_finder
from partzoo.discovery.finder import Finder
from partzoo.errors import UsageError
from partzoo.evaluate.floors import BOX, COLOUR, FLOORS, floor_encoder, floor_finder
from partzoo.evaluate.foreground import Scorer, box_scorer, finder_scorer, foreground_figures
from partzoo.evaluate.parts.figures import part_figures
from partzoo.evaluate.probes.classes import classify_figures
from partzoo.evaluate.probes.patches import patch_figures
from partzoo.evaluate.protocols import get
from partzoo.evaluate.protocols.base import PartProtocol
from partzoo.evaluate.protocols.classification import ClassProtocol
from partzoo.evaluate.protocols.coco import DetectionProtocol
from partzoo.evaluate.protocols.masks import ForegroundProtocol
from partzoo.evaluate.report import DEFAULT, FORMAT, write_csv
from partzoo.evaluate.reproduction import unmeasured
from partzoo.features import DEFAULT_MODEL
from partzoo.files import write_aside
from partzoo.models.folding import folded
from partzoo.models.loading import load
from partzoo.models.registry import find
from partzoo.progress import ProgressCallback
from partzoo.system.hardware import hardware
from partzoo.system.memory import kept_memory
from partzoo.weights.manifest import manifest

PARTS = (4, 8, 16)  # how many are looked for where nothing else is said


def evaluate(
    model: str,
    protocol: str,
    data: str | Path,
    *,
    k: Sequence[int | None] | None = None,
    seeds: int = 5,
    split: str | None = None,
    background: str | None = "auto",
    size: int | None = None,
    refine: bool = True,
    rotate: float = 0.0,
    patches: Sequence[int] | None = None,
    augment: bool = False,
    limit: int | None = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Figures of a model by a protocol.

    Args:
        model: what :func:`partzoo.load` takes, or one of ``partzoo.evaluate.floors.FLOORS``; for ``coco-detection`` a
            JSON file of detections.
        protocol: a name from :func:`partzoo.evaluate.protocols.names`.
        data: the folder with the protocol's data.
        k: numbers of parts to look for, among them None for a learned part model's own. By default 4, 8 and 16; of a
            learned part model its own and those below. Part protocols only.
        seeds: 0..seeds-1 are used: of the clustering, of a probe's training, of PART's positions.
        split: in place of the one that the protocol reports on.
        background, size, refine: as :func:`partzoo.discover_parts` takes them. With ``refine=False`` the maps of a
            learned part model are its own at the protocol's size, as the papers measure them. Part protocols only.
        rotate: degrees, counter-clockwise, that the reported images are turned by. Part protocols only.
        patches: probe a model of Spatial Reasoning on the image and so many patches of it, for each of these numbers
            (:func:`partzoo.evaluate.probes.patches.patch_figures`). Protocols of classes only.
        augment: train these probes on augmented images, drawn anew in every epoch.
        limit: use at most so many images of each split: for trying out.
        out: JSON file of the record. A file that holds this very evaluation already is kept and read.
        progress: told what is done, how much, and of how much.

    Returns:
        The record: ``model``, ``protocol``, ``setting``, ``split``, ``images``, ``command``, ``weights_sha256``,
        ``hardware`` and ``runs``, each with ``k``, ``seed`` (None for figures over all seeds) and ``metrics``.

    Raises:
        UsageError: no such protocol, an option does not fit it, or the data is not there.
    """
    rules = get(protocol)
    if seeds < 1:
        raise UsageError(f"seeds={seeds} must be at least 1.")
    asks_for_parts = isinstance(rules, PartProtocol | ForegroundProtocol)
    if not asks_for_parts and (background, size, refine, rotate) != ("auto", None, True, 0):
        raise UsageError(f"background, size, refine and rotate are for parts, which {protocol} does not ask for.")
    if (patches is not None and not isinstance(rules, ClassProtocol)) or (augment and patches is None):
        raise UsageError("patches are for protocols of classes, and augment goes with patches.")
    if isinstance(rules, ClassProtocol) and split not in (None, rules.test):
        raise UsageError(f"{protocol} is fitted on {rules.train} and reported on {rules.test}, not on {split!r}.")
    chosen: dict[str, Any] = {"split": split or _reported(rules), "limit": limit}
    if isinstance(rules, PartProtocol):
        finder = _finder(model, background, size, refine)
        k = _numbers(finder) if k is None else list(k)
        weights, chosen = digest(finder.model), chosen | {"k": k, "seeds": seeds}
        folded(finder.model)
        options = {"k": k, "seeds": range(seeds), "split": split, "limit": limit, "rotate": rotate}
        measure = partial(part_figures, finder, rules, data, progress=progress, **options)
    elif isinstance(rules, ForegroundProtocol):
        weights, scorer = _scorer(model, background, size, refine)
        measure = partial(foreground_figures, scorer, rules, data, split=split, limit=limit, progress=progress)
    elif isinstance(rules, ClassProtocol):
        encoder = floor_encoder(model) if model in FLOORS else load(model, dtype="float32")
        weights, chosen = digest(encoder), chosen | {"seeds": seeds}
        options = {"seeds": range(seeds), "limit": limit, "progress": progress}
        measure = partial(classify_figures, encoder, rules, data, **options)
        if patches is not None:
            chosen |= {"patches": list(patches), "augment": augment}
            measure = partial(patch_figures, encoder, rules, data, patches=patches, augment=augment, **options)
    elif isinstance(rules, DetectionProtocol):
        weights = _sha256(Path(model))
        measure = partial(_detection_figures, rules, Path(model), data, split)
    else:
        raise UsageError(
            f"{protocol} measures models finetuned on its stages: run 'partzoo stages MODEL --data DIR -o OUT', "
            f"or in Python partzoo.evaluate.protocols.get({protocol!r}).evaluate(model.stages, data)."
        )
    record = {
        "format": FORMAT,
        "protocol": protocol,
        "model": model,
        "setting": _setting(background, size, refine, rotate),
        "weights_sha256": weights,
        **chosen,
    }
    if out is not None and (known := _known(Path(out), record)):
        return known
    with kept_memory():
        runs, images = measure()
    record |= {"images": images, "command": _command(record), "hardware": hardware(), "runs": runs}
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with write_aside(out) as file:
            file.write((json.dumps(record, indent=1) + "\n").encode())
    return record


def evaluate_all(
    protocol: str,
    data: str | Path,
    out: str | Path,
    *,
    k: Sequence[int | None] | None = None,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> Path:
    """Evaluate every released weight and every floor by a protocol, and write ``<protocol>.csv``.

    Args:
        protocol, data: as :func:`evaluate` takes them.
        out: folder of the CSV; the records lie in ``eval/<protocol>/`` there, and those there already are kept.
        k: numbers of parts, as :func:`evaluate` takes them; each model is asked for those that it can give.
        progress: as :func:`evaluate` takes it; the text begins with the model.
        **options: of :func:`evaluate`.

    Returns:
        The CSV file.
    """
    records = []
    for model, chosen in rows(protocol):
        label = _setting(**chosen)
        file = Path(out, "eval", protocol, f"{model}{'' if label == DEFAULT else f'.{label}'}.json")

        def tell(what: str, done: int, of: int, label: str = f"{model}, {label}") -> None:
            if progress:
                progress(f"{label}: {what}", done, of)

        if k is not None:
            chosen["k"] = [each for each in k if _can_give(model, each)]
        records.append(evaluate(model, protocol, data, out=file, progress=tell, **(options | chosen)))
    path = Path(out, f"{protocol}.csv")
    write_csv(records, path)
    return path


def rows(protocol: str) -> list[tuple[str, dict[str, Any]]]:
    """What ``partzoo eval --all`` evaluates: released weights that are not too slow for it, and floors, with settings.

    Where parts are asked for, the default model of ``discover_parts`` and the floor of colour and place come also with
    other ways to find the foreground, and models with parts of several classes do not: those classes are their data's.
    """
    if isinstance(get(protocol), ForegroundProtocol):
        return _foreground_rows()
    parts = isinstance(get(protocol), PartProtocol)
    several = {name for name, each in manifest().items() if "parts" in each.config and each.config.get("classes")}
    left = unmeasured() | (several if parts else set())
    names = [name for name in (*manifest(), *FLOORS) if name not in left]
    found = [(name, {"background": "auto", "size": None}) for name in names]
    if parts:
        for name, methods in ((DEFAULT_MODEL, ("boundary", "none")), (COLOUR, ("boundary",))):
            found += [(name, {"background": method, "size": None}) for method in methods]
    return found


def _foreground_rows() -> list[tuple[str, dict[str, Any]]]:
    """Foreground models, the head beside patchresnet14, and floors."""
    models = [name for name, each in manifest().items() if find(each.architecture).family == "foreground"]
    names = [name for name in models if not name.endswith("-first")]  # first trainings are no models to use
    found = [(name, {"background": "auto", "size": None}) for name in (*names, BOX)]
    found += [(DEFAULT_MODEL, {"background": "boundary", "size": None})]
    return [*found, ("patchresnet14-fg.caltech101", {"background": "objectness", "size": None})]


def digest(model: nn.Module) -> str:
    """sha256 over names, shapes and bytes of a model's weights, whatever file they came from."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _finder(model: str, background: str | None, size: int | None, refine: bool) -> Finder:
    if model in FLOORS:
        finder = floor_finder(model, None if background == "auto" else background, size)
    else:
        finder = make_finder(load(model, dtype="float32"), background, size)
    return finder.with_settings(model=model, refine=refine)


def _scorer(model: str, background: str | None, size: int | None, refine: bool) -> tuple[str, Scorer]:
    """The digest of what finds a foreground, and its scorer; a foreground model is taken with the default encoder."""
    if model == BOX:
        return "", box_scorer
    if is_foreground_model(model):
        finder = _finder(DEFAULT_MODEL, model, size, refine)
        folded(finder.model)
        return digest(load(model, dtype="float32")), finder_scorer(finder)
    finder = _finder(model, background, size, refine)
    weights = digest(finder.model)
    folded(finder.model)
    return weights, finder_scorer(finder)


def _numbers(finder: Finder) -> list[int]:
    """How many parts are looked for where nothing else is said."""
    if not finder.learned:
        return list(PARTS)
    return [k for k in PARTS if k < finder.own and not finder.classes] + [finder.own]


def _can_give(model: str, k: int | None) -> bool:
    """Whether a released model or a floor can be asked for so many parts, None being those that it has learned."""
    record = manifest().get(model)
    known = record.config.get("parts") if record else None
    return k is not None if known is None else k is None or k <= known


def _detection_figures(
    rules: DetectionProtocol, detections: Path, data: str | Path, split: str | None
) -> tuple[list[dict[str, Any]], int]:
    figures = rules.average_precision(detections, data, split=split)
    images = {each["image_id"] for each in json.loads(detections.read_bytes())}
    return [{"k": None, "seed": None, "metrics": figures}], len(images)


def _reported(rules: Any) -> str:
    """The split that a protocol reports on."""
    if isinstance(rules, ForegroundProtocol):
        return rules.split
    return rules.report if isinstance(rules, PartProtocol) else getattr(rules, "test", "test")


def _sha256(file: Path) -> str:
    if not file.is_file():
        raise UsageError(f"{file} is not there: this protocol takes a JSON file of detections for its MODEL.")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _setting(background: str | None, size: int | None, refine: bool = True, rotate: float = 0.0) -> str:
    """What differs from the defaults, in a few words."""
    chosen = {
        f"background={background}": background != "auto",
        f"size={size}": size,
        "no-refine": not refine,
        f"rotate={rotate:g}": rotate,
    }
    return ",".join(text for text, differs in chosen.items() if differs) or DEFAULT


def _known(file: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The record in a file, if it is of this very evaluation."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return record if all(record.get(key) == value for key, value in identity.items()) else None
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError) as error:
        raise UsageError(f"-o {file} is there and is no record of an evaluation: choose another file.") from error


def _command(record: dict[str, Any]) -> str:
    parts = ["partzoo eval", record["model"], "--protocol", record["protocol"], "--data DIR"]
    if record.get("k"):
        parts += ["-k", ",".join("own" if k is None else str(k) for k in record["k"])]
    if record.get("seeds"):
        parts += ["--seeds", str(record["seeds"])]
    if record.get("patches"):
        parts += ["--patches", ",".join(map(str, record["patches"]))] + ["--augment"] * record["augment"]
    if record["setting"] != DEFAULT:
        parts += [f"--{option.replace('=', ' ')}" for option in record["setting"].split(",")]
    if record["split"] != _reported(get(record["protocol"])):
        parts += ["--split", record["split"]]
    if record["limit"]:
        parts += ["--limit", str(record["limit"])]
    return " ".join(parts)
