"""``weights_manifest.json``: what the released weights are, where they lie and how they were made."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from partzoo.errors import WeightsError
from partzoo.files import write_aside

FORMAT = 1
NAME = "weights_manifest.json"
PACKAGE = Path(__file__).parents[1]
BUNDLED, CHECKPOINTS = "weights", "checkpoints"


@dataclass(frozen=True)
class WeightFile:
    """One file of a record.

    Attributes:
        path: ``weights/...``, inside the package, or ``checkpoints/...``, in a clone; with forward slashes.
        sha256: of its content, 64 lower-case hexadecimal digits.
        bytes: its size.
    """

    path: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if len(parts) < 2 or parts[0] not in (BUNDLED, CHECKPOINTS) or ".." in parts:
            raise WeightsError(f"{self.path!r} is neither weights/... nor checkpoints/...: correct {NAME}.")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise WeightsError(f"sha256 of {self.path} is {self.sha256!r}, not 64 hexadecimal digits: correct {NAME}.")


@dataclass(frozen=True)
class WeightRecord:
    """What is known about one released weight.

    Attributes:
        name: ``architecture.tag``.
        architecture: registered name.
        config: values of the architecture's configuration.
        files: one safetensors file, or shards and their ``.safetensors.index.json``.
        hub: ``{"repo": ..., "revision": ...}`` of its Hub repository, None while it has none.
        licence: of the weights.
        terms: of the data they were trained on.
        data: what that was.
        labels_used: whether training saw labels.
        recipe: the recipe's name.
        command: the one that made the weights.
        seed: of that command.
        budget: ``{"hardware": ..., "minutes": ..., "images_seen": ...}``.
        metrics: each with ``name``, ``value``, ``protocol`` and ``command``.
        golden: input and output of :func:`partzoo.weights.release_files.golden`.
        parents: names of the weights that training started from.
        masks_used: whether training saw masks.
        source: for weights by other people, the ``package``, its ``version``, the ``file`` in it and that file's
            ``sha256``.
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

    def __post_init__(self) -> None:
        if not self.name.startswith(f"{self.architecture}."):
            raise WeightsError(f"{self.name!r} is not {self.architecture}.TAG: correct the name in {NAME}.")
        if not self.files:
            raise WeightsError(f"{self.name} has no files: correct {NAME}.")

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def bundled(self) -> bool:
        """Whether the files come with the package."""
        return all(file.path.startswith(f"{BUNDLED}/") for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """The record as it stands in the manifest."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> WeightRecord:
        """The inverse of :meth:`to_json`."""
        lists = {"metrics": tuple(values["metrics"]), "parents": tuple(values.get("parents", ()))}
        return cls(**(values | lists | {"files": tuple(WeightFile(**file) for file in values["files"])}))


def clones() -> list[Path]:
    """Roots of ``checkpoints/``: the clone that partzoo is imported from, the current folder if it is one."""
    return [folder for folder in (PACKAGE.parent, Path()) if (folder / NAME).is_file()]


def manifest(path: str | Path | None = None) -> dict[str, WeightRecord]:
    """The released weights by name, in the file's order: an architecture's first is its default.

    Args:
        path: a manifest; None is the installed package's, or that of the clone it is imported from.

    Raises:
        WeightsError: the file is missing, damaged or of a newer format.
    """
    file = Path(path) if path is not None else _default()
    records = (_record(file, values) for values in _read(file)["weights"])
    return {record.name: record for record in records}


def add_record(record: WeightRecord, path: str | Path | None = None) -> Path:
    """Put a record into a manifest, in the place of one of the same name or at the end.

    Args:
        record: the record.
        path: a manifest; None is the clone's.

    Returns:
        The manifest's path.

    Raises:
        WeightsError: partzoo was not imported from a clone and no path was given, or the manifest is damaged.
    """
    file = Path(path) if path is not None else PACKAGE.parent / NAME
    if path is None and not file.is_file():
        raise WeightsError(f"There is no {file}: release weights from a clone of the repository, or pass path=.")
    content = _read(file)
    records = {values["name"]: values for values in content["weights"]} | {record.name: record.to_json()}
    text = json.dumps(content | {"weights": list(records.values())}, indent=2) + "\n"
    with write_aside(file) as opened:
        opened.write(text.encode())
    return file


def _default() -> Path:
    packaged = PACKAGE / NAME
    return packaged if packaged.is_file() else PACKAGE.parent / NAME


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"The manifest {file} cannot be read: {error}. Reinstall partzoo.") from error
    if not isinstance(content, dict) or not isinstance(content.get("weights"), list):
        raise WeightsError(f"{file} is not a manifest of weights: reinstall partzoo.")
    if content.get("format") != FORMAT:
        raise WeightsError(f"{file} has format {content.get('format')!r}, not {FORMAT}: upgrade partzoo.")
    return content


def _record(file: Path, values: Any) -> WeightRecord:
    try:
        return WeightRecord.from_json(values)
    except (KeyError, TypeError, AttributeError) as error:
        name = values.get("name") if isinstance(values, dict) else values
        raise WeightsError(f"The record {name!r} of {file} is not whole ({error}): reinstall partzoo.") from error
