"""`PartVocabulary`: saved part appearances, so that part 3 means the same part in later images."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import partzoo
from partzoo.errors import UsageError, WeightsError, counted
from partzoo.files import expand_user, parse_json, reading
from partzoo.limits import MAX_PARTS, check_parts, check_size
from partzoo.locks import remove_leftovers
from partzoo.parts.parts import default_name, default_names
from partzoo.settings import checked, types_of
from partzoo.weights.tensors import read_arrays, read_metadata, read_tensors, save_tensors

if TYPE_CHECKING:
    from partzoo.discovery.judging import PartScores

FORMAT, VERSION = "partzoo-vocabulary-", 3
OLDEST = 2  # version that can still be read: it has no names, no history, and one centre for each part
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
        sided: of taught parts, whether left and right differ.
        sizes: of taught parts, the sizes at which the encoder sees an image, in pixels; otherwise empty.
    """

    model: str
    size: int
    layers: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    background: str = "none"
    refine: bool = True
    centre: bool = False
    sided: bool = False
    sizes: tuple[int, ...] = ()

    @property
    def taught(self) -> bool:
        """Whether the parts were taught: the centres are then the coefficients of a classifier fitted to labels."""
        return bool(self.sizes)


class Network(NamedTuple):
    """A network with one hidden layer, which classifies cells.

    Attributes:
        hidden: ``(H, D + 1)`` float32: for each hidden unit the coefficients of what it sees, then its constant.
        output: ``(R, H + 1)`` float32: for each class the coefficients of the hidden units, then its constant.
    """

    hidden: Any
    output: Any


@dataclass(frozen=True, eq=False)
class PartVocabulary:
    """Part centres, their numbers and names, and the settings that they were found with.

    The methods that shape a vocabulary return a new one, in which parts that they do not name keep their numbers.
    A number that becomes free stays unused, until :meth:`reorder` numbers all parts anew.

    Attributes:
        centres: ``(R, D)`` tensor, or array where torch is not used, unit length; without rows for a learned part
            model, which holds the centres itself. Of taught parts, coefficients ``(R, D + 1)`` of a linear classifier,
            the background first, and its constants.
        settings: options that determine an image's descriptors.
        numbering: part (1..K) that each centre, or each part of a learned part model, belongs to; 0 is the background.
            If it is empty, row i is part i + 1.
        names: names of the K parts; by default ``part 1``, ``part 2``, ...
        history: what was done to the vocabulary since it was fitted, such as ``join([2, 5], name='wheel')``.
        examples: digests of the images that taught parts were taught with.
        network: of taught parts, the network that sees what the classifier finds around a cell, and decides; or None.
            Its classes are the rows of the centres.
    """

    centres: Any
    settings: Settings
    numbering: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    network: Network | None = None

    def __post_init__(self) -> None:
        if not self.names and self.k <= MAX_PARTS:  # a stranger's file may state any number, which is refused later
            object.__setattr__(self, "names", default_names(self.k))

    @property
    def k(self) -> int:
        """Highest number of a part."""
        return max(self.numbering) if self.numbering else len(self.centres)

    @property
    def learned(self) -> bool:
        """Whether the parts are those of a learned part model."""
        return bool(self.numbering) and not len(self.centres)

    @property
    def rows(self) -> tuple[int, ...]:
        """Part of each centre, or of each part of a learned part model; see :attr:`numbering`."""
        return self.numbering or tuple(range(1, len(self.centres) + 1))

    @property
    def used(self) -> tuple[int, ...]:
        """Numbers of the parts, ascending, without those that are unused."""
        return tuple(sorted({*self.rows} - {0}))

    def __repr__(self) -> str:
        named = ", ".join(f"{part}={self.names[part - 1]!r}" for part in self.used if self.is_named(part))
        about = f"model={self.settings.model!r}, background={self.settings.background!r}"
        return f"PartVocabulary(k={self.k}, {f'names={{{named}}}, ' if named else ''}{about})"

    def is_named(self, part: int) -> bool:
        """Return whether a part has a name of its own."""
        return self.names[part - 1] != default_name(part)

    def rename(self, names: Mapping[int, str] | Sequence[str]) -> PartVocabulary:
        """Return a vocabulary with other names.

        Args:
            names: names by number, or the names of all parts, from 1.

        Raises:
            UsageError: a part does not exist, a name is empty, or two parts have the same name.
        """
        if not isinstance(names, Mapping):
            if isinstance(names, str) or len(names) != self.k:
                raise UsageError(f"names={names!r:.80}: give a name for each of {counted(self.k, 'part')}.")
            names = dict(enumerate(names, 1))
        for part in names:
            self.check_part(part)
        changed = {part: str(name).strip() for part, name in names.items()}
        found = tuple(changed.get(part, name) for part, name in enumerate(self.names, 1))
        return self.shaped(f"rename({changed!r})", self.rows, found)

    def join(self, parts: Sequence[int], *, name: str | None = None) -> PartVocabulary:
        """Return a vocabulary in which several parts are one, with the lowest of their numbers.

        Args:
            parts: numbers of at least two parts.
            name: name of the joined part; by default the name of the part with the lowest number.

        Raises:
            UsageError: there are fewer than two parts, one does not exist, or another part has the name.
        """
        parts = sorted({self.check_part(part) for part in parts})
        if len(parts) < 2:
            raise UsageError(f"parts={parts}: joining needs at least two different parts.")
        first, *others = parts
        names = [default_name(part) if part in others else own for part, own in enumerate(self.names, 1)]
        if name is not None:
            names[first - 1] = name.strip()
        rows = tuple(first if part in others else part for part in self.rows)
        return self.shaped(f"join({parts}{'' if name is None else f', name={name!r}'})", rows, names)

    def drop(self, *parts: int) -> PartVocabulary:
        """Return a vocabulary without some parts: what was one of them becomes background.

        Under a mask given by the caller, where every pixel has a part, it becomes the part that is next in similarity.

        Raises:
            UsageError: a part does not exist.
        """
        gone = {self.check_part(part) for part in parts}
        names = [default_name(part) if part in gone else name for part, name in enumerate(self.names, 1)]
        rows = tuple(0 if part in gone else part for part in self.rows)
        return self.shaped(f"drop({', '.join(map(str, sorted(gone)))})", rows, names)

    def reorder(self, order: Sequence[int] | None = None) -> PartVocabulary:
        """Return a vocabulary with the parts numbered anew.

        Args:
            order: present number of the new part 1, of the new part 2, ...; None keeps the order and only closes the
                gaps.

        Raises:
            UsageError: the order does not name each part once.
        """
        order = list(self.used if order is None else order)
        if sorted(order) != list(self.used):
            raise UsageError(f"order={order} must name each part once: {', '.join(map(str, self.used))}.")
        new = {part: number for number, part in enumerate(order, 1)} | {0: 0}
        names = [
            self.names[part - 1] if self.is_named(part) else default_name(number)
            for number, part in enumerate(order, 1)
        ]
        return self.shaped(f"reorder({order})", tuple(new[part] for part in self.rows), names)

    def split(self, part: int, *, images: Any, into: int = 2, seed: int = 0, **options: Any) -> PartVocabulary:
        """Return a vocabulary in which one part is divided, by how its cells look in some images.

        The largest piece keeps the number and the name; the others get new numbers after the last one.

        Args:
            part: number of the part.
            images: images that show it, in any form that :func:`partzoo.discover_parts` accepts.
            into: number of pieces.
            seed: random seed of the clustering.
            **options: ``model``, ``mask``, ``device``, ``batch_size``, ``progress``, ``max_pixels`` and ``max_bytes``,
                as for :func:`partzoo.discover_parts`.

        Raises:
            UsageError: the part does not exist, the images show too little of it, or the vocabulary is that of a
                learned part model.
        """
        return partzoo.split_part(self, part, images, into, seed, **options)

    def evaluate(self, images: Any, labels: Any, **options: Any) -> PartScores:
        """Compare the parts with labels.

        An image that the vocabulary was taught with is judged by what other such images here teach, since it would
        agree with its own labels too well: they are divided into five groups, or one for each image if there are fewer,
        and each group is judged by the others. That needs two images, and a vocabulary that was not shaped since.

        Args:
            images, labels: as for :func:`partzoo.fit_parts`, with the numbers of this vocabulary's parts.
            **options: ``model``, ``device``, ``progress``, ``max_pixels`` and ``max_bytes``, as for
                :func:`partzoo.discover_parts`.

        Returns:
            The IoU of each part, and in how many images the labels show it.

        Raises:
            UsageError: the labels do not fit the images or the parts.
        """
        return partzoo.PartScores.of(self, images, labels, **options)

    def check_part(self, part: int) -> int:
        """Return the number of a part unchanged.

        Raises:
            UsageError: there is no such part.
        """
        if part not in self.used:
            raise UsageError(f"part={part!r} does not exist: the parts are {', '.join(map(str, self.used)) or 'none'}.")
        return part

    def shaped(self, what: str, rows: Sequence[int], names: Sequence[str], centres: Any = None) -> PartVocabulary:
        """Return a changed vocabulary, with an entry in its history.

        Raises:
            UsageError: a name is empty, or two parts have the same name.
        """
        count = max(rows, default=0)
        names = tuple(names[:count])
        if "" in names:
            raise UsageError("A part needs a name that is not empty.")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"Two parts cannot both be named {twice!r}: join them, or choose another name.")
        return dataclasses.replace(
            self,
            centres=self.centres if centres is None else centres,
            numbering=tuple(rows),
            names=names,
            history=(*self.history, what),
        )

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
            "names": json.dumps(self.names),
            "history": json.dumps(self.history),
            "examples": json.dumps(self.examples),
        }
        try:
            save_tensors(path, {"centres": self.centres} | (self.network._asdict() if self.network else {}), metadata)
        except OSError as error:
            raise UsageError(f"Cannot write {str(path)!r} ({error}): choose a folder that can be written.") from None

    def _check(self) -> None:
        """Check the values read from a file, since anyone may have written it.

        Raises:
            ValueError: a value is out of range, or values do not fit together.
        """
        for size in (self.settings.size, *self.settings.sizes):
            check_size(size)
        if len(self.settings.sizes) > 8:
            raise ValueError("it has too many sizes")
        check_parts(self.k)
        centres = np.asarray(self.centres)
        if centres.ndim != 2 or centres.dtype.kind != "f" or not np.isfinite(centres).all():
            raise ValueError("its centres are not a table of finite numbers")
        if self.network is not None:
            hidden, output = map(np.asarray, self.network)
            tables = [
                each.ndim == 2 and each.dtype == np.float32 and np.isfinite(each).all() for each in (hidden, output)
            ]
            if not all(tables):
                raise ValueError("its network is not two tables of finite numbers")
            if output.shape != (len(centres), len(hidden) + 1) or not self.settings.taught:
                raise ValueError("its network does not fit its centres")
        if any(not 0 <= part <= MAX_PARTS for part in self.numbering) or len(self.numbering) > MAX_PARTS:
            raise ValueError("its numbering is not of parts")
        if self.numbering and len(self.centres) not in (0, len(self.numbering)):
            raise ValueError("its numbering is not one part for each centre")
        if len(self.names) != self.k or len({*self.names}) != self.k:
            raise ValueError("its names are not one for each part")
        if not all(abs(layer) <= 256 for layer in self.settings.layers):
            raise ValueError("its layers are out of range")
        blocks = 0 if self.learned or self.settings.taught else len(self.settings.layers) + 2
        if self.settings.taught and not self.numbering:
            raise ValueError("it was taught, but has no numbering")
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
            names, history, examples = (
                checked(key, parse_json(metadata.get(key, "[]")), tuple[str, ...])
                for key in ("names", "history", "examples")
            )
            network = Network(tensors["hidden"], tensors["output"]) if "hidden" in tensors else None
            vocabulary = cls(tensors["centres"], Settings(**settings), numbering, names, history, examples, network)
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
    if int(number) < OLDEST:
        raise WeightsError(f"{str(path)!r} is a vocabulary of an older version of partzoo: fit it again.")
    if int(number) > VERSION:
        raise WeightsError(f"{str(path)!r} is a vocabulary of a newer version of partzoo: upgrade partzoo.")
