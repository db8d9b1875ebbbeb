"""The manifest of a result: its settings, its shards with their digests, and the images that could not be read.

A run appends a line to ``unfinished.jsonl`` for each finished shard and writes ``manifest.json`` at its end, so it can
be killed at any moment. A folder with a manifest is complete, and the manifest counts where both files exist.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import partzoo
from partzoo.collections.shards import Shard, measured
from partzoo.errors import PartzooError, UsageError
from partzoo.files import expand_user, parse_json, reading, write_aside
from partzoo.locks import remove_leftovers
from partzoo.settings import changed

MANIFEST, UNFINISHED = "manifest.json", "unfinished.jsonl"
FORMAT = "partzoo-collection-1"
SHARD = re.compile(r"[a-z]+/\d{6,}\.(parquet|safetensors)")


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
    def read(cls, folder: Path) -> Manifest | None:
        """Read the manifest of a finished or unfinished result; None if the folder holds neither.

        Raises:
            PartzooError: the manifest is damaged.
        """
        file = folder / MANIFEST
        if not file.exists():
            return _unfinished(folder / UNFINISHED)
        with reading(file, fix="start over with resume=False"):
            found = parse_json(file.read_text(encoding="utf-8"))
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
    """The record of a run that writes a result, as a context; nothing on disk changes before it is entered.

    Args:
        folder: folder of the result.
        settings: everything that the shards depend on, except the images themselves.
        resume: whether to continue an earlier run; None continues it if there is one, False starts over.

    Raises:
        UsageError: the folder holds a result of other settings, which may not be replaced, or foreign files with the
            names of shards.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, resume: bool | None) -> None:
        self.folder = folder
        settings = json.loads(json.dumps({"partzoo": partzoo.__version__} | settings))
        earlier = None if resume is False else Manifest.read(folder)
        if not is_result(folder) and (foreign := sorted(_shard_files(folder))):
            raise UsageError(f"{str(folder)!r} holds {foreign[0]!r} but no manifest: choose another out=.")
        if earlier is not None and earlier.shards and (found := changed(earlier.settings, settings)):
            changes = ", ".join(f"{name} was {before}, is {after}" for name, before, after in found)
            raise UsageError(
                f"{str(folder)!r} has results of other settings ({changes}). Give the same settings, choose another "
                "out=, or replace the results with resume=False."
            )
        kept = {} if earlier is None or earlier.settings != settings else earlier.shards
        self.before = {number: shard for number, shard in kept.items() if _is_there(folder, shard)}
        self._complete = earlier is not None and earlier.complete and self.before == kept
        self._manifest = Manifest(settings, dict(self.before), False)

    def __enter__(self) -> Self:
        """Write the settings and the finished shards, and delete all other shards; a complete result stays as it is.

        Raises:
            PartzooError: the folder cannot be written.
        """
        if self._complete:
            return self
        with write_aside(self.folder / UNFINISHED) as file:  # rewritten, because a killed run may leave half a line
            lines = [{"format": FORMAT, "settings": self._manifest.settings}, *map(asdict, self.before.values())]
            file.write("".join(f"{json.dumps(line)}\n" for line in lines).encode())
        (self.folder / MANIFEST).unlink(missing_ok=True)
        for each in _shard_files(self.folder) - {shard.file for shard in self.before.values()}:
            (self.folder / each).unlink()
        for below in self.folder.glob("*/"):
            remove_leftovers(below)  # which the lock of the result removes only from the result's own folder
        return self

    def __exit__(self, *_: object) -> None:
        """Delete everything of a run that has ended without a finished shard."""
        if not self._manifest.shards:
            for each in (UNFINISHED, *_shard_files(self.folder)):
                (self.folder / each).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it is not there, or not empty
                (self.folder / self._manifest.settings["stage"]).rmdir()

    def add(self, shard: Shard) -> None:
        """Record a shard whose file has been written."""
        self._manifest.shards[shard.number] = shard
        with (self.folder / UNFINISHED).open("a", encoding="utf-8") as lines:
            lines.write(f"{json.dumps(asdict(shard))}\n")

    def finish(self) -> Manifest:
        """Write the manifest, which makes the result complete, and return it."""
        done = replace(self._manifest, complete=True, before=len(self.before))
        if not self._complete:
            with write_aside(self.folder / MANIFEST) as file:
                file.write(done.json().encode())
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        return done


@dataclass(frozen=True)
class Checked:
    """What a check found of one file of a result.

    Attributes:
        file: the file.
        state: ``"ok"``, ``"damaged"``, ``"missing"`` or ``"unlisted"``.
        bytes: size of the file, None if it is missing.
        problem: a sentence, empty if the state is ``"ok"``.
    """

    file: Path
    state: str
    bytes: int | None
    problem: str = ""


def is_result(folder: Path) -> bool:
    """Return whether a folder holds a result, finished or not."""
    return (folder / MANIFEST).is_file() or (folder / UNFINISHED).is_file()


def verify(folder: str | Path) -> list[Checked]:
    """Compare the shards of a result with its manifest, reading every byte.

    Raises:
        UsageError: the folder holds no result.
        PartzooError: the result is unfinished, or its manifest is damaged.
    """
    folder = expand_user(folder)
    manifest = Manifest.read(folder)
    if manifest is None:
        raise UsageError(f"{str(folder)!r} holds no {MANIFEST}: pass the folder of a result.")
    if not manifest.complete:
        raise PartzooError(
            f"{str(folder)!r} is unfinished: it has {len(manifest.shards)} shards. Run the same command again."
        )
    found = [_checked(folder / shard.file, shard) for _, shard in sorted(manifest.shards.items())]
    for each in sorted(_shard_files(folder) - {shard.file for shard in manifest.shards.values()}):
        file = folder / each
        problem = f"{file} is not in the manifest, but a reader of all shards would read it: delete it."
        found.append(Checked(file, "unlisted", file.stat().st_size, problem))
    return found


def _checked(file: Path, shard: Shard) -> Checked:
    try:
        size, sha256 = measured(file)
    except FileNotFoundError:
        return Checked(file, "missing", None, f"{file} is missing: run the same command again.")
    if sha256 == shard.sha256:
        return Checked(file, "ok", size)
    problem = f"{file} is damaged: its sha256 is not the manifest's. Delete it, and run the same command again."
    return Checked(file, "damaged", size, problem)


def _is_there(folder: Path, shard: Shard) -> bool:
    """Return whether a recorded shard is there with its size; :func:`verify` compares the content."""
    with contextlib.suppress(OSError):
        return (folder / shard.file).stat().st_size == shard.bytes
    return False


def _shard_files(folder: Path) -> set[str]:
    """Return the paths, in the folder, of all files with the name of a shard."""
    found = (each.relative_to(folder).as_posix() for each in folder.glob("*/*"))
    return {each for each in found if SHARD.fullmatch(each)}


def _unfinished(file: Path) -> Manifest | None:
    """Read the complete lines of an unfinished run's record."""
    if not file.exists():
        return None
    with reading(file, fix="start over with resume=False"):
        first, *rest = file.read_text(encoding="utf-8", errors="replace").splitlines()
        found = parse_json(first)
        _check_format(found)
    shards = {}
    for line in rest:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # half a line, of a run that was killed
            shard = _shard(parse_json(line))
            shards[shard.number] = shard
    return Manifest(dict(found["settings"]), shards, False)


def _check_format(found: dict[str, Any]) -> None:
    if found["format"] != FORMAT:
        raise ValueError(f"its format is {found['format']!r:.40}, not {FORMAT}")


def _shard(found: dict[str, Any]) -> Shard:
    shard = Shard(**found | {"failures": tuple((str(key), str(reason)) for key, reason in found["failures"])})
    if not SHARD.fullmatch(shard.file):
        raise ValueError(f"{shard.file!r:.80} is not the name of a shard")
    return shard
