"""``weights_manifest.json``: a record of each released model's weights, with their files and how they were made."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from partzoo.errors import WeightsError
from partzoo.files import check_version, expand_user, read_json, reading, write_aside
from partzoo.locks import locked
from partzoo.settings import checked, types_of

FORMAT = 1
NAME = "weights_manifest.json"
PACKAGE = Path(__file__).parents[1]
BUNDLED, CHECKPOINTS = "weights", "checkpoints"
VARIABLE = "PARTZOO_CHECKPOINTS"  # environment variable that names a folder with the files of checkpoints/


@dataclass(frozen=True)
class WeightFile:
    """One file of a record, with its hash and size.

    Attributes:
        path: ``weights/...`` in the package, or ``checkpoints/...`` in a clone, with forward slashes.
        sha256: hash of the content, 64 lower-case hexadecimal digits.
        bytes: size of the file.
    """

    path: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if len(parts) < 2 or parts[0] not in (BUNDLED, CHECKPOINTS) or ".." in parts:
            raise WeightsError(f"{self.path!r} must be weights/... or checkpoints/...: correct {NAME}.")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise WeightsError(f"sha256 of {self.path} is {self.sha256!r}, not 64 hexadecimal digits: correct {NAME}.")


@dataclass(frozen=True)
class WeightRecord:
    """The record of one set of released weights.

    Attributes:
        name: ``architecture.tag``.
        architecture: registered name of the architecture.
        config: values of the architecture's configuration.
        files: one safetensors file, or shards and their ``.safetensors.index.json``.
        hub: ``{"repo": ..., "revision": ...}`` of the Hub repository; None if there is none.
        licence: licence of the weights.
        terms: terms of use of the training data.
        data: description of the training data.
        labels_used: whether labels were used in training.
        recipe: name of the recipe.
        command: command that made the weights.
        seed: random seed of the command.
        budget: ``{"hardware": ..., "minutes": ..., "images_seen": ...}``.
        metrics: scores, each with ``name``, ``value``, ``protocol`` and ``command``. The score that the README shows
            also has a ``headline``, which is its name there.
        golden: fixed input and the output for it, from :func:`partzoo.weights.release_files.golden`.
        parents: names of the weights that training started from.
        masks_used: whether masks were used in training.
        source: for weights made by others, the ``package``, its ``version``, the ``file`` in it and that file's
            ``sha256``.
        superseded_by: name of the record that replaces this one, which is kept as one of its ancestors; else None.
        method: name in the README of the method that trained the weights; "" is the architecture's family.
        measured: whether ``partzoo eval --all`` measures the weights; False for weights that are too large for that,
            and for those that serve as parents of other weights.
        alias: short name by which :func:`partzoo.load` finds the weights too, or "". Under it, ``discover_parts`` looks
            for the object in smaller frames of an image (:mod:`partzoo.discovery.framed`).
    """

    name: str
    architecture: str
    config: dict[str, Any]
    files: tuple[WeightFile, ...]
    licence: str
    terms: str
    data: str
    labels_used: bool
    recipe: str
    command: str
    seed: int
    budget: dict[str, Any]
    metrics: tuple[dict[str, Any], ...]
    golden: dict[str, Any]
    hub: dict[str, str] | None = None
    parents: tuple[str, ...] = ()
    masks_used: bool = False
    source: dict[str, str] | None = None
    superseded_by: str | None = None
    method: str = ""
    measured: bool = True
    alias: str = ""

    def __post_init__(self) -> None:
        if not self.name.startswith(f"{self.architecture}."):
            raise WeightsError(f"{self.name!r} is not {self.architecture}.TAG: correct the name in {NAME}.")
        if not self.files:
            raise WeightsError(f"{self.name} has no files: correct {NAME}.")
        if self.hub is not None and not {"repo", "revision"} <= self.hub.keys():
            raise WeightsError(f"hub of {self.name} must name 'repo' and 'revision': correct {NAME}.")

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)

    @property
    def bundled(self) -> bool:
        """Whether the files are part of the package."""
        return all(file.path.startswith(f"{BUNDLED}/") for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, as in the manifest."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> WeightRecord:
        """Make a record from JSON values; the inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, AttributeError: a value is missing.
            UsageError: a value has another type.
        """
        files = tuple(WeightFile(**_typed(WeightFile, file)) for file in values["files"])
        return cls(**_typed(cls, values | {"files": files}))


def _typed(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    types = types_of(kind)
    return {name: checked(name, value, types[name]) for name, value in values.items()}


def short_name(data: str) -> str:
    """Shorten the name of training data: leave out the number of images and any further data after it."""
    return re.split(r"; |, (?=\d)", data)[0]


def checkpoint_folders() -> list[Path]:
    """Return the folders that may hold released weights beside those in the package, in the order of the search.

    They are PARTZOO_CHECKPOINTS, and ``checkpoints/`` of the clone that partzoo is imported from and of the clone that
    contains the current folder.

    Raises:
        WeightsError: PARTZOO_CHECKPOINTS is not a folder.
    """
    here = Path.cwd()
    roots = [folder for folder in (PACKAGE.parent, here, *here.parents) if (folder / NAME).is_file()]
    found = [root / CHECKPOINTS for root in roots]
    if named := os.environ.get(VARIABLE):
        if not (folder := expand_user(named)).is_dir():
            raise WeightsError(f"{VARIABLE} is {named!r}, which is not a folder: set it to checkpoints/ of a clone.")
        found = [folder, *found]
    return list(dict.fromkeys(folder.resolve() for folder in found))


def manifest(path: str | Path | None = None) -> dict[str, WeightRecord]:
    """Read the records of the released weights.

    Args:
        path: manifest to read; None uses the manifest of the installed package, or of the clone that partzoo is
            imported from.

    Returns:
        Records by name, in the order of the file. The first record of an architecture is its default.

    Raises:
        WeightsError: the file is missing, damaged or of a newer format.
    """
    file = Path(path) if path is not None else _default()
    content = _read(file)
    with reading(file, WeightsError, "has an incomplete record", "reinstall partzoo"):
        records = map(WeightRecord.from_json, content["weights"])
        return {record.name: record for record in records}


def short_names() -> dict[str, str]:
    """Return the aliases of released weights with the names of these weights."""
    return {record.alias: record.name for record in manifest().values() if record.alias}


def full_name(name: str) -> str:
    """Return the name of the released weights that an alias stands for; any other name is returned unchanged."""
    return short_names().get(name, name)


def add_record(record: WeightRecord, path: str | Path | None = None) -> Path:
    """Add a record to a manifest, at the end or instead of the record of the same name.

    Args:
        record: record to add.
        path: manifest to write; None uses the clone's.

    Returns:
        Path of the manifest.

    Raises:
        WeightsError: partzoo was not imported from a clone and no path was given, or the manifest is damaged.
    """
    file = Path(path) if path is not None else PACKAGE.parent / NAME
    if path is None and not file.is_file():
        raise WeightsError(f"There is no {file}: release weights from a clone of the repository, or pass path=.")
    with locked(file, wait=True):  # or the record that another process adds meanwhile would be lost
        content = _read(file)
        records = {values["name"]: values for values in content["weights"]} | {record.name: record.to_json()}
        text = json.dumps(content | {"weights": list(records.values())}, indent=2, ensure_ascii=False) + "\n"
        with write_aside(file) as opened:
            opened.write(text.encode())
    return file


def _default() -> Path:
    packaged = PACKAGE / NAME
    return packaged if packaged.is_file() else PACKAGE.parent / NAME


def _read(file: Path) -> dict[str, Any]:
    with reading(file, WeightsError, "is not a manifest of weights", "reinstall partzoo"):
        content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("weights"), list):
        raise WeightsError(f"{file} is not a manifest of weights: reinstall partzoo.")
    written = content.get("format")
    if not isinstance(written, int):
        raise WeightsError(f"{file} states the format {written!r}, not {FORMAT}: reinstall partzoo.")
    check_version(written, FORMAT, str(file), WeightsError)
    return content
