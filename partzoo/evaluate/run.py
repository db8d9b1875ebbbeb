"""``evaluate`` runs a protocol on a model and returns a record of the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from partzoo.discovery.foreground import METHODS
from partzoo.errors import UsageError, WeightsError
from partzoo.evaluate.failed import Failed
from partzoo.evaluate.floors import BOX, COLOUR, FLOORS
from partzoo.evaluate.foreground_measurement import ForegroundMeasurement
from partzoo.evaluate.measurement import Measurement, Request
from partzoo.evaluate.parts.measurement import PartMeasurement
from partzoo.evaluate.probes.measurement import ClassMeasurement
from partzoo.evaluate.protocols import get
from partzoo.evaluate.protocols.base import PartProtocol
from partzoo.evaluate.protocols.classification import ClassProtocol
from partzoo.evaluate.protocols.coco import DetectionMeasurement, DetectionProtocol
from partzoo.evaluate.protocols.masks import ForegroundProtocol
from partzoo.evaluate.protocols.taught import TaughtProtocol
from partzoo.evaluate.report import DEFAULT, FORMAT, read_csv, write_csv
from partzoo.evaluate.report import rows as rows_of
from partzoo.evaluate.taught import TaughtMeasurement
from partzoo.features import DEFAULT_MODEL
from partzoo.files import check_version, expand_user, parse_json, reading, write_aside
from partzoo.locks import locked, remove_leftovers
from partzoo.models.loading import on_meta
from partzoo.models.registry import find
from partzoo.places import check_place, made_folder
from partzoo.progress import ProgressCallback
from partzoo.settings import changed
from partzoo.skipping import warn_of
from partzoo.system.device import Device
from partzoo.system.hardware import hardware
from partzoo.system.memory import kept_memory
from partzoo.weights.manifest import WeightRecord, full_name, manifest

MEASUREMENTS: dict[type, type[Measurement]] = {
    PartProtocol: PartMeasurement,
    ForegroundProtocol: ForegroundMeasurement,
    ClassProtocol: ClassMeasurement,
    DetectionProtocol: DetectionMeasurement,
    TaughtProtocol: TaughtMeasurement,
}


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
    category: str | None = None,
    patches: Sequence[int] | None = None,
    augment: bool = False,
    limit: int | None = None,
    strict: bool = False,
    device: Device = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Evaluate a model under a protocol and return a record of the figures.

    An image or an annotation that cannot be used is skipped, named in a warning, and listed under ``failed`` in the
    record. The figures are those of the others.

    Args:
        model: a model in any form that :func:`partzoo.load` accepts, or one of ``partzoo.evaluate.floors.FLOORS``; for
            ``coco-detection`` a JSON file of detections.
        protocol: a name from :func:`partzoo.evaluate.protocols.names`.
        data: the folder with the protocol's data.
        k: numbers of parts to look for; None among them means the number that a learned part model has. The default is
            4, 8 and 16; for a learned part model, the number that it has and whichever of 4, 8 and 16 are smaller. Part
            protocols only.
        seeds: number of random seeds, 0..seeds-1, for the clustering, a probe's training, or PART's positions.
        split: split to report on instead of the protocol's.
        background, size, refine: as in :func:`partzoo.discover_parts`. With ``refine=False`` the maps of a learned part
            model are used unchanged at the protocol's size, as the papers measure them. Part protocols only.
        rotate: angle in degrees, counter-clockwise, by which the reported images are rotated. Part protocols only.
        category: class of CUB, by its number from 1 or its folder's name: only its birds are used. ``cub`` and
            ``cub-partformer`` only.
        patches: numbers n: a Spatial Reasoning model is probed on the image and n of its patches, for each n
            (:func:`partzoo.evaluate.probes.patches.patch_figures`). Classification protocols only.
        augment: whether to train these probes on augmented images, with new augmentations in every epoch.
        limit: use at most this many images of each split, for a quick trial.
        strict: whether to stop at the first image or annotation that cannot be used.
        device: where the model runs, as for :func:`partzoo.load`.
        out: JSON file of the record. If it already holds the same evaluation, in which nothing was skipped, that record
            is returned. No file with other content is replaced.
        progress: function that is called with the name of the work, the amount done, and the total.

    Returns:
        The record: ``model``, ``protocol``, ``setting``, ``split``, ``images``, ``command``, ``weights_sha256``,
        ``hardware``, ``failed`` (``path`` and ``reason`` of each skipped item) and ``runs``, each with
        ``k``, ``seed`` (None for figures over all seeds) and ``metrics``.

    Raises:
        UsageError: the protocol is unknown or does not have an option, the model does not have ``k`` parts, the data
            is missing, this machine does not have the device, or ``out`` holds anything but a record of the same
            evaluation.
        ImageError: none of the images can be used, or ``strict`` is set and one cannot.
    """
    rules, kind = get(protocol), measurement_of(protocol)
    if seeds < 1:
        raise UsageError(f"seeds={seeds}, but at least 1 is needed.")
    request = Request(
        model, protocol, Path(data), k, seeds, split, background, size, refine, rotate, category, patches, augment,
        limit, device,
    )  # fmt: skip
    kind.check(request)
    made = kind(rules, request)
    record = {
        "format": FORMAT,
        "protocol": protocol,
        "model": model,
        "setting": _setting(background, size, refine, rotate, category),
        "weights_sha256": made.weights,
        "split": split or kind.reported_split(rules),
        "limit": limit,
        **made.identity,
    }
    place = None if out is None else expand_user(out)
    if place is None:
        return _measured(made, record, strict=strict, progress=progress)
    if known := _known(place, record):
        remove_leftovers(place.parent)  # of a process that was killed after it had written the record
        return known
    with made_folder(place.parent):
        check_place(place)
        with locked(place):
            if known := _known(place, record):  # written by another process since
                return known
            record = _measured(made, record, strict=strict, progress=progress)
            with write_aside(place) as file:
                file.write((json.dumps(record, indent=1) + "\n").encode())
    return record


def _measured(
    made: Measurement, identity: dict[str, Any], *, strict: bool, progress: ProgressCallback | None
) -> dict[str, Any]:
    """Measure, and return the record with its identity."""
    failed = Failed(strict=strict)
    with kept_memory(), failed.gathered():
        runs, images = made.measure(progress, failed.pass_over)
    record = identity | {"images": images, "failed": failed.listed}
    return record | {"command": _command(record), "hardware": hardware(), "runs": runs}


def evaluate_all(
    protocol: str,
    data: str | Path,
    out: str | Path,
    *,
    k: Sequence[int | None] | None = None,
    strict: bool = False,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> tuple[Path, list[str]]:
    """Evaluate all released weights and all floors under a protocol, and write ``<protocol>.csv``.

    A model whose weights are missing or damaged is skipped and named in a warning.

    Args:
        protocol, data: as in :func:`evaluate`.
        out: folder for the CSV; the records are in its subfolder ``eval/<protocol>/``, and existing records are kept.
        k: numbers of parts, as in :func:`evaluate`; each model is evaluated with those that it supports.
        strict: whether to stop at the first model, image or annotation that cannot be used.
        progress: as in :func:`evaluate`; the text begins with the model.
        **options: other arguments of :func:`evaluate`.

    Returns:
        The CSV file, and the names of the models, images and annotations that were skipped.

    Raises:
        WeightsError: no model can be measured, or ``strict`` is set and one cannot.
    """
    path, every = expand_user(Path(out, f"{protocol}.csv")), rows(protocol)
    if path.exists():
        read_csv(path)  # an error before the work, if it is anything but an earlier table
    with made_folder(path.parent):
        check_place(path)
        with locked(path):
            records, failed = _evaluate_rows(every, protocol, data, path.parent, k, strict, progress, options)
            if not records:
                first = next(iter(failed.values()))
                raise WeightsError(f"No model can be measured by {protocol}. Of the first: {first}")
            write_csv(records, path)
    return path, list(failed)


def _evaluate_rows(
    every: Sequence[tuple[str, dict[str, Any]]],
    protocol: str,
    data: str | Path,
    out: Path,
    k: Sequence[int | None] | None,
    strict: bool,
    progress: ProgressCallback | None,
    options: dict[str, Any],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the records of all models and settings, and the reason for each model, image or annotation skipped."""
    records, failed = [], {}
    for model, chosen in every:
        label = _setting(**chosen)
        file = out / "eval" / protocol / f"{model}{'' if label == DEFAULT else f'.{label}'}.json"

        def report(what: str, done: int, of: int, label: str = f"{model}, {label}") -> None:
            if progress:
                progress(f"{label}: {what}", done, of)

        if k is not None:
            chosen["k"] = [each for each in k if _can_give(model, each)]
        try:
            record = evaluate(model, protocol, data, strict=strict, out=file, progress=report, **(options | chosen))
        except WeightsError as error:
            if strict:
                raise
            warn_of(model, error)
            failed[model] = str(error)
        else:
            records.append(record)
            failed |= {each["path"]: each["reason"] for each in record.get("failed", ())}
    return records, failed


def rows(protocol: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the models and settings for ``partzoo eval --all``: floors, and the weights recorded as ``measured``.

    The default model of ``discover_parts`` and the floor that uses only colour and position are included with every
    foreground method that does not depend on the encoder. Foreground protocols also measure encoders with an objectness
    head. Models with parts for each class are left out of part protocols, because they only know the classes that they
    were trained on.
    """
    records = [each for each in manifest().values() if each.measured]
    networks = [each for each in records if find(each.architecture).family == "foreground"]
    others = [each for each in records if each not in networks]
    if isinstance(get(protocol), ForegroundProtocol):
        return _foreground_rows(networks, others)
    if not isinstance(get(protocol), PartProtocol):
        return [_row(name) for name in (*(each.name for each in others), *FLOORS)]
    names = [each.name for each in others if not ("parts" in each.config and each.config.get("classes"))]
    found = [_row(name) for name in (*names, *FLOORS)]
    found += [_row(DEFAULT_MODEL, method) for method in _independent()]
    return found + [_row(COLOUR, method) for method in _independent() if method != "none"]  # "none" is its default


def _foreground_rows(
    networks: Sequence[WeightRecord], others: Sequence[WeightRecord]
) -> list[tuple[str, dict[str, Any]]]:
    """Return the foreground models, the floor, the other independent methods, and encoders with an objectness head."""
    found = [_row(name) for name in (*(each.name for each in networks), BOX)]
    found += [_row(DEFAULT_MODEL, method) for method in _independent() if method != "none"]
    with_head = [name for name, method in METHODS.items() if method.objectness]
    return found + [_row(each.name, method) for each in others if _has_head(each) for method in with_head]


def _row(model: str, background: str = "auto") -> tuple[str, dict[str, Any]]:
    return model, {"background": background, "size": None}


def _independent() -> list[str]:
    """Return the foreground methods that do not depend on the encoder."""
    return [name for name, method in METHODS.items() if method.independent]


def _has_head(record: WeightRecord) -> bool:
    """Return whether a model has an objectness head."""
    entry = find(record.architecture)
    return hasattr(on_meta(entry, entry.configure(record.config)), "objectness")


def measurement_of(protocol: str) -> type[Measurement]:
    """Return the class that evaluates models under a protocol.

    Raises:
        UsageError: the protocol is unknown, or its models must be finetuned first.
    """
    kind = MEASUREMENTS.get(type(get(protocol)))
    if kind is None:
        raise UsageError(
            f"{protocol} measures models that were finetuned on its stages. Run 'partzoo stages MODEL --data DIR -o "
            f"OUT', or in Python partzoo.evaluate.protocols.get({protocol!r}).evaluate(model.stages, data)."
        )
    return kind


def _can_give(model: str, k: int | None) -> bool:
    """Return whether a released model or a floor can find k parts; None stands for the number that it has learned."""
    record = manifest().get(full_name(model))
    known = record.config.get("parts") if record else None
    return k is not None if known is None else k is None or k <= known


def _setting(
    background: str | None,
    size: int | None,
    refine: bool = True,
    rotate: float = 0.0,
    category: str | None = None,
) -> str:
    """Describe the settings that differ from the defaults."""
    chosen = {
        f"background={background}": background != "auto",
        f"size={size}": size,
        "no-refine": not refine,
        f"rotate={rotate:g}": rotate,
        f"category={category}": category,
    }
    return ",".join(text for text, differs in chosen.items() if differs) or DEFAULT


def _known(file: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record in a file if nothing was skipped in it; None if it may be written.

    Raises:
        UsageError: the file holds anything but a record of the same evaluation.
    """
    if not file.exists():
        return None
    with reading(file, UsageError, "exists and is not a record of an evaluation", "choose another out="):
        record = parse_json(file.read_bytes())
        check_version(record.get("format"), FORMAT, f"out={file}", UsageError)
        rows_of([record])  # raises for values that no table can be made of
    asked = json.loads(json.dumps(identity))
    found = changed({key: record.get(key) for key in asked}, asked)
    if changes := [f"{key} was {before!r}, is {after!r}" for key, before, after in found]:
        raise UsageError(
            f"out={file} holds the record of another evaluation ({', '.join(changes)}). Choose another file, or delete "
            "this one."
        )
    return None if record.get("failed") else record


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
    if record["split"] != measurement_of(record["protocol"]).reported_split(get(record["protocol"])):
        parts += ["--split", record["split"]]
    if record["limit"]:
        parts += ["--limit", str(record["limit"])]
    return " ".join(parts)
