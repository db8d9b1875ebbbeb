"""`PartVocabulary`: what parts look like, kept so that part 3 is the same part next week."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from partzoo.errors import UsageError, WeightsError
from partzoo.files import path_aside, stand_in_of

FORMAT, VERSION = "partzoo-vocabulary-", 2


@dataclass(frozen=True)
class Settings:
    """How an image becomes descriptors.

    Attributes:
        model: name of the encoder or part model; "" for one that was passed as a module without a name.
        size: longer side of the image at work, in pixels.
        layers: which intermediate maps of the encoder.
        weights: of each layer, of colour and of position; they sum to one.
        background: how the foreground is found: a method, or the name of a foreground model.
        refine: follow the image's edges.
        centre: take from each image's features their mean over its foreground.
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
    """Part centres with the settings they were found with, in their numbering: row i is part i + 1.

    Attributes:
        centres: ``(K, D)`` unit length; a learned part model's are in the model: no rows.
        settings: how an image becomes descriptors.
        numbering: for a learned part model, the part (1..K) that each of its own parts belongs to; else empty.
    """

    centres: Tensor
    settings: Settings
    numbering: tuple[int, ...] = ()

    @property
    def k(self) -> int:
        """How many parts it tells apart."""
        return max(self.numbering) if self.numbering else len(self.centres)

    def __repr__(self) -> str:
        return f"PartVocabulary(k={self.k}, model={self.settings.model!r}, background={self.settings.background!r})"

    def save(self, path: str | os.PathLike) -> None:
        """Write it to a safetensors file, aside first, so that nothing half-written remains."""
        path = Path(path).expanduser()
        metadata = {
            "format": f"{FORMAT}{VERSION}",
            "settings": json.dumps(dataclasses.asdict(self.settings)),
            "numbering": json.dumps(self.numbering),
        }
        try:
            with path_aside(path) as aside:
                save_file({"centres": self.centres.contiguous()}, aside, metadata)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"Cannot write {str(path)!r} ({error}): choose a folder that can be written.") from None

    @classmethod
    def load(cls, path: str | os.PathLike) -> PartVocabulary:
        """Read what :meth:`save` wrote.

        Raises:
            WeightsError: the file is missing, damaged, not a vocabulary, or of another version of partzoo.
        """
        path = Path(path).expanduser()
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                _check_version(path, metadata.get("format", ""))
                settings = json.loads(metadata["settings"])
                known = {field.name for field in dataclasses.fields(Settings)}
                if unknown := settings.keys() - known:
                    raise WeightsError(
                        f"{str(path)!r} has settings that this partzoo does not know ({', '.join(sorted(unknown))}): "
                        "it was written by a newer version. Upgrade partzoo."
                    )
                for name in ("layers", "weights"):
                    settings[name] = tuple(settings[name])
                return cls(file.get_tensor("centres"), Settings(**settings), tuple(json.loads(metadata["numbering"])))
        except FileNotFoundError:
            raise WeightsError(f"No such file: {str(path)!r}. Check the path.") from None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            reason = stand_in_of(path) or f"is damaged ({error}): save the vocabulary again"
            raise WeightsError(f"{str(path)!r} {reason}.") from None


def _check_version(path: Path, written: str) -> None:
    """Refuse files of other formats and versions, each in a sentence of its own."""
    number = written.removeprefix(FORMAT)
    if not written.startswith(FORMAT) or not number.isdecimal():
        raise WeightsError(f"{str(path)!r} holds no part vocabulary: pass what PartVocabulary.save wrote.")
    if int(number) < VERSION:
        raise WeightsError(f"{str(path)!r} is a vocabulary of an older partzoo: fit it again.")
    if int(number) > VERSION:
        raise WeightsError(f"{str(path)!r} is a vocabulary of a newer version of partzoo: upgrade partzoo.")
