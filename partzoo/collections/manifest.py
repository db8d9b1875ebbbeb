"""The manifest of a result: its settings, its shards with their digests, and the images that could not be read.

A run writes a record for each finished shard into the folder ``_unfinished``, and ``manifest.json`` at its end, so it
can be killed at any moment. A result with a manifest is complete, and the manifest counts where both are there.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import partzoo
from partzoo.collections.destinations import destination_of
from partzoo.collections.shards import Shard
from partzoo.errors import PartzooError, UsageError, cause_of
from partzoo.files import parse_json
from partzoo.settings import changed

if TYPE_CHECKING:
    import os

    from partzoo.collections.destinations import Destination

MANIFEST, UNFINISHED, SETTINGS = "manifest.json", "_unfinished", "settings.json"
FORMAT = "partzoo-collection-1"
SHARD = re.compile(r"[a-z]+/\d{6,}(\.[a-z]+)?")


@dataclass(frozen=True)
class Manifest:
    """A result's settings and shards, as far as it has been written.

    Attributes:
        settings: everything that the shards depend on, except the images themselves.
        shards: the finished shards by number.
        complete: whether these are all.
        before: number of the shards that an earlier run had finished.
    """

    settings: dict[str, Any]
    shards: dict[int, Shard]
    complete: bool
    before: int = 0

    @property
    def images(self) -> int:
        """Number of images that were read, or could not be."""
        return sum(shard.images for shard in self.shards.values())

    @property
    def rows(self) -> int:
        """Number of rows: of images that could be read."""
        return sum(shard.rows for shard in self.shards.values())

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Key of each image that could not be read, and the reason, in order."""
        return [each for number in sorted(self.shards) for each in self.shards[number].failures]

    @classmethod
    def read(cls, place: Destination) -> Manifest | None:
        """Read the manifest of a finished or unfinished result; None if there is neither.

        Raises:
            PartzooError: the manifest is damaged.
        """
        data = place.read(MANIFEST)
        if data is None:
            return _unfinished(place)
        with _parsing(place, MANIFEST):
            found = parse_json(data)
            _check_format(found)
            shards = [_shard(each) for each in found["shards"]]
            return cls(dict(found["settings"]), {each.number: each for each in shards}, True)

    def json(self) -> str:
        """Return the content of ``manifest.json``, which is the same for all runs with the same settings and images."""
        about = {
            "format": FORMAT,
            "settings": self.settings,
            "images": self.images,
            "rows": self.rows,
            "failed": len(self.failures),
            "shards": [asdict(self.shards[number]) for number in sorted(self.shards)],
        }
        return json.dumps(about, indent=1) + "\n"


class Ledger:
    """The record of a run that writes a result, as a context; nothing is written before it is entered.

    Args:
        place: place of the result.
        settings: everything that the shards depend on, except the images themselves.
        resume: whether to continue an earlier run; None continues it if there is one, False starts over.

    Raises:
        UsageError: the place holds a result of other settings, which may not be replaced, or foreign files with the
            names of shards.
    """

    def __init__(self, place: Destination, settings: dict[str, Any], *, resume: bool | None) -> None:
        self.place = place
        settings = json.loads(json.dumps({"partzoo": partzoo.__version__} | settings))
        found = None
        try:
            found = Manifest.read(place)
        except PartzooError:
            if resume is not False:  # what is replaced may be damaged
                raise
        earlier = None if resume is False else found
        self._folders = {settings["stage"]} | ({found.settings["stage"]} if found else set())
        if not is_result(place) and (foreign := sorted(_shard_names(place, self._folders))):
            raise UsageError(f"{place.address!r} holds {foreign[0]!r} but no manifest: choose another out=.")
        if earlier is not None and earlier.shards and (others := changed(earlier.settings, settings)):
            changes = ", ".join(map(_change, others))
            raise UsageError(
                f"{place.address!r} has results of other settings ({changes}). Give the same settings, choose another "
                "out=, or replace the results with resume=False."
            )
        kept = {} if earlier is None or earlier.settings != settings else earlier.shards
        self.before = {n: shard for n, shard in kept.items() if place.size(shard.file) == shard.bytes}
        self._complete = earlier is not None and earlier.complete and self.before == kept
        self._manifest = Manifest(settings, dict(self.before), False)

    def __enter__(self) -> Self:
        """Record the settings and the finished shards, and remove all other shards; a complete result stays as it is.

        At any moment, what is recorded is true, so that a kill in between does no harm.

        Raises:
            PartzooError: the place cannot be written.
        """
        if self._complete:
            return self
        wanted = {_record(number): shard for number, shard in self.before.items()}
        there = self.place.names(UNFINISHED) - {SETTINGS}
        for name in sorted(there - wanted.keys()):
            self.place.remove(f"{UNFINISHED}/{name}")
        for name in sorted(wanted.keys() - there):
            self.place.write(f"{UNFINISHED}/{name}", _line(asdict(wanted[name])))
        about = _line({"format": FORMAT, "settings": self._manifest.settings})
        if self.place.read(f"{UNFINISHED}/{SETTINGS}") != about:
            self.place.write(f"{UNFINISHED}/{SETTINGS}", about)
        self.place.remove(MANIFEST)
        for name in sorted(_shard_names(self.place, self._folders) - {shard.file for shard in self.before.values()}):
            self.place.remove(name)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove everything of a run that has ended without a finished shard."""
        if not self._manifest.shards:
            for name in (*_shard_names(self.place, self._folders), UNFINISHED):
                self.place.remove(name)
            if not self.place.names(stage := self._manifest.settings["stage"]):
                self.place.remove(stage)

    def add(self, shard: Shard) -> None:
        """Record a shard that has been written."""
        self.place.write(f"{UNFINISHED}/{_record(shard.number)}", _line(asdict(shard)))
        self._manifest.shards[shard.number] = shard

    def finish(self) -> Manifest:
        """Write the manifest, which makes the result complete, and return it."""
        done = replace(self._manifest, complete=True, before=len(self.before))
        if not self._complete:
            self.place.write(MANIFEST, done.json().encode())
        self.place.remove(UNFINISHED)
        return done


@dataclass(frozen=True)
class Checked:
    """What a check found of one shard of a result.

    Attributes:
        file: path or address of the shard.
        state: ``"ok"``, ``"damaged"``, ``"missing"`` or ``"unlisted"``.
        bytes: its size, None if it is missing.
        problem: a sentence, empty if the state is ``"ok"``.
    """

    file: str
    state: str
    bytes: int | None
    problem: str = ""


def is_result(place: Destination) -> bool:
    """Return whether a place holds a result, finished or not."""
    return MANIFEST in place.names("") or SETTINGS in place.names(UNFINISHED)


def verify(out: str | os.PathLike) -> list[Checked]:
    """Compare the shards of a result with its manifest, reading every byte.

    Args:
        out: folder of the result, or its address.

    Raises:
        UsageError: there is no result.
        PartzooError: the result is unfinished, or its manifest is damaged.
    """
    place = destination_of(out)
    manifest = Manifest.read(place)
    if manifest is None:
        raise UsageError(f"{place.address!r} holds no {MANIFEST}: pass the folder of a result.")
    if not manifest.complete:
        raise PartzooError(
            f"{place.address!r} is unfinished: it has {len(manifest.shards)} shards. Run the same command again."
        )
    found = [_checked(place, shard) for _, shard in sorted(manifest.shards.items())]
    listed = {shard.file for shard in manifest.shards.values()}
    for name in sorted(_shard_names(place, {manifest.settings["stage"]}) - listed):
        file = place.at(name)
        problem = f"{file} is not in the manifest, but a reader of all shards would read it: delete it."
        found.append(Checked(file, "unlisted", place.size(name), problem))
    return found


def _checked(place: Destination, shard: Shard) -> Checked:
    file = place.at(shard.file)
    try:
        size, sha256 = place.measured(shard.file)
    except FileNotFoundError:
        return Checked(file, "missing", None, f"{file} is missing: run the same command again.")
    if sha256 == shard.sha256:
        return Checked(file, "ok", size)
    problem = f"{file} is damaged: its sha256 is not the manifest's. Delete it, and run the same command again."
    return Checked(file, "damaged", size, problem)


def _shard_names(place: Destination, folders: set[str]) -> set[str]:
    """Return everything in these folders of a result that has the name of a shard."""
    found = {f"{folder}/{name}" for folder in folders for name in place.names(folder)}
    return {name for name in found if SHARD.fullmatch(name)}


def _record(number: int) -> str:
    """Return the name of the record of a finished shard."""
    return f"{number:06}.json"


def _change(of: tuple[str, Any, Any]) -> str:
    """Say how a setting differs, or which entries of it; long values, such as digests, are cut."""
    name, before, after = of
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(_change((f"{name}'s {key}", was, now)) for key, was, now in changed(before, after))
    was, now = (text if len(text) <= 40 else f"{text[:20]}..." for text in map(str, (before, after)))
    return f"{name} was {was}, is {now}"


def _line(about: dict[str, Any]) -> bytes:
    return f"{json.dumps(about)}\n".encode()


def _unfinished(place: Destination) -> Manifest | None:
    """Read the records of a run that has not ended."""
    data = place.read(f"{UNFINISHED}/{SETTINGS}")
    if data is None:
        return None
    shards = {}
    with _parsing(place, UNFINISHED):
        about = parse_json(data)
        _check_format(about)
        for name in sorted(place.names(UNFINISHED) - {SETTINGS}):
            if re.fullmatch(r"\d{6,}\.json", name):
                shard = _shard(parse_json(place.read(f"{UNFINISHED}/{name}") or b""))
                shards[shard.number] = shard
        return Manifest(dict(about["settings"]), shards, False)


@contextlib.contextmanager
def _parsing(place: Destination, name: str) -> Iterator[None]:
    """Turn what is wrong with a file of a result into one sentence."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise PartzooError(f"{place.at(name)} is damaged ({cause_of(error)}): start over with resume=False.") from error


def _check_format(found: dict[str, Any]) -> None:
    if found["format"] != FORMAT:
        raise ValueError(f"its format is {found['format']!r:.40}, not {FORMAT}")
    if "stage" not in found["settings"]:
        raise ValueError("its settings name no stage")


def _shard(found: dict[str, Any]) -> Shard:
    shard = Shard(**found | {"failures": tuple((str(key), str(reason)) for key, reason in found["failures"])})
    if not SHARD.fullmatch(shard.file):
        raise ValueError(f"{shard.file!r:.80} is not the name of a shard")
    return shard
