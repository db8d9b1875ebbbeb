"""`PartVocabulary`: saved part appearances, so that part 3 means the same part in later images."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partzoo.errors import UsageError, WeightsError
from partzoo.files import expand_user, parse_json, reading
from partzoo.limits import MAX_PARTS, check_parts, check_size
from partzoo.locks import remove_leftovers
from partzoo.settings import checked, types_of
from partzoo.weights.tensors import read_arrays, read_metadata, read_tensors, save_tensors

FORMAT, VERSION = "partzoo-vocabulary-", 2
FIX = "save the vocabulary again"


@dataclass(frozen=True)
class Settings:
    """The options that determine an image's descriptors.

    Attributes:
        model: name of the encoder or part model; "" for a module that was passed without a name.
        size: longer side of the image at its working size, in pixels.
        layers: indices of the encoder's intermediate maps.
        weights: weight of each layer, of colour and of position; they sum to one.
        background: name of a foreground method or of a foreground model.
        refine: whether to align the parts with the image's edges.
        centre: whether to subtract from each image's features their mean over its foreground.
    """

    model: str
    size: int
    layers: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    background: str = "none"
    refine: bool = True
    centre: bool = False


@dataclass(frozen=True, eq=False)
class PartVocabulary:
    """Part centres, numbered so that row i is part i + 1, and the settings that they were found with.

    Attributes:
        centres: ``(K, D)`` tensor, or array where torch is not used, unit length; without rows for a learned part
            model, which holds the centres itself.
        settings: options that determine an image's descriptors.
        numbering: for a learned part model, the part (1..K) that each of the model's parts belongs to; otherwise empty.
    """

    centres: Any
    settings: Settings
    numbering: tuple[int, ...] = ()

    @property
    def k(self) -> int:
        """Number of parts that the vocabulary distinguishes."""
        return max(self.numbering) if self.numbering else len(self.centres)

    def __repr__(self) -> str:
        return f"PartVocabulary(k={self.k}, model={self.settings.model!r}, background={self.settings.background!r})"

    def save(self, path: str | os.PathLike) -> None:
        """Write the vocabulary to a safetensors file, atomically, so that no half-written file remains.

        Raises:
            UsageError: the file cannot be written.
        """
        path = expand_user(path)
        remove_leftovers(path.parent)  # which no lock does here
        metadata = {
            "format": f"{FORMAT}{VERSION}",
            "settings": json.dumps(dataclasses.asdict(self.settings)),
            "numbering": json.dumps(self.numbering),
        }
        try:
            save_tensors(path, {"centres": self.centres}, metadata)
        except OSError as error:
            raise UsageError(f"Cannot write {str(path)!r} ({error}): choose a folder that can be written.") from None

    def _check(self) -> None:
        """Check the values read from a file, since anyone may have written it.

        Raises:
            ValueError: a value is out of range, or values do not fit together.
        """
        check_size(self.settings.size)
        check_parts(self.k)
        centres = np.asarray(self.centres)
        if centres.ndim != 2 or centres.dtype.kind != "f" or not np.isfinite(centres).all():
            raise ValueError("its centres are not a table of finite numbers")
        if any(not 1 <= part <= MAX_PARTS for part in self.numbering) or len(self.numbering) > MAX_PARTS:
            raise ValueError("its numbering is not of parts")
        if not all(abs(layer) <= 256 for layer in self.settings.layers):
            raise ValueError("its layers are out of range")
        blocks = 0 if self.numbering else len(self.settings.layers) + 2
        if len(self.settings.weights) != blocks or not all(0 <= weight <= 1 for weight in self.settings.weights):
            raise ValueError("its weights are not one share for each layer, colour and position")

    @classmethod
    def load(cls, path: str | os.PathLike, *, arrays: bool = False) -> PartVocabulary:
        """Read a file written by :meth:`save`; ``arrays`` reads its centres as an array, without torch.

        Raises:
            WeightsError: the file is missing, damaged, not a vocabulary, or from a different version of partzoo.
        """
        path = expand_user(path)
        if not os.path.isfile(path):
            raise WeightsError(f"No such file: {str(path)!r}. Check the path.")
        with reading(path, WeightsError, fix=FIX):
            _check_version(path, read_metadata(path, fix=FIX).get("format", ""))
            tensors, metadata = (read_arrays if arrays else read_tensors)(path, fix=FIX)
            settings = parse_json(metadata["settings"])
            known = {field.name for field in dataclasses.fields(Settings)}
            if unknown := settings.keys() - known:
                raise WeightsError(
                    f"{str(path)!r} has settings that this partzoo does not know ({', '.join(sorted(unknown))}): "
                    "it was written by a newer version. Upgrade partzoo."
                )
            types = types_of(Settings)
            settings = {name: checked(name, value, types[name]) for name, value in settings.items()}
            numbering = checked("numbering", parse_json(metadata["numbering"]), tuple[int, ...])
            vocabulary = cls(tensors["centres"], Settings(**settings), numbering)
            vocabulary._check()
            return vocabulary


def read_vocabulary(vocabulary: PartVocabulary | str | os.PathLike | None) -> PartVocabulary | None:
    """Return a vocabulary that may be given as its file; None is returned unchanged.

    Raises:
        UsageError: it is neither a vocabulary nor a path.
        WeightsError: the file is missing or damaged.
    """
    if isinstance(vocabulary, str | os.PathLike):
        return PartVocabulary.load(vocabulary)
    if vocabulary is not None and not isinstance(vocabulary, PartVocabulary):
        raise UsageError(f"vocabulary= is a {type(vocabulary).__name__}: pass the result of fit_parts, or its file.")
    return vocabulary


def _check_version(path: Path, written: str) -> None:
    """Refuse files that are no vocabulary or have an unknown version, with a separate message for each."""
    number = written.removeprefix(FORMAT)
    if not written.startswith(FORMAT) or not number.isdecimal():
        raise WeightsError(f"{str(path)!r} holds no part vocabulary: pass a file written by PartVocabulary.save.")
    if int(number) < VERSION:
        raise WeightsError(f"{str(path)!r} is a vocabulary of an older version of partzoo: fit it again.")
    if int(number) > VERSION:
        raise WeightsError(f"{str(path)!r} is a vocabulary of a newer version of partzoo: upgrade partzoo.")
