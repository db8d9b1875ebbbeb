"""Record on disk which images a run has finished, so that the same command can continue it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import click

import partzoo
from partzoo.errors import UsageError, counted
from partzoo.files import parse_json, write_aside
from partzoo.locks import hidden_folder, remove_leftovers
from partzoo.places import make_folder
from partzoo.settings import changed

FORMAT = "partzoo-run-1"
SETTINGS, DONE, VOCABULARY = "settings.json", "done.jsonl", "vocabulary.safetensors"


class Journal:
    """A folder with the settings of a run, its vocabulary, and a line for each finished image.

    An image is finished if it has a line and the file that the line names exists. The line is written after the file,
    so a run can be killed at any time. Nothing on disk changes before :meth:`begin`.

    Args:
        folder: folder of the journal.
        output: output of the run, as the user named it, for messages.
        settings: everything that the results depend on except the images; for files, their :func:`fingerprint`.
        resume: whether to continue an earlier run; None continues it if there is one. False starts over.

    Raises:
        UsageError: the earlier run, which may not be started over, had different settings.
    """

    def __init__(self, folder: Path, output: str, settings: dict[str, Any], *, resume: bool | None) -> None:
        self.folder, self._output = folder, output
        self._settings = json.loads(json.dumps(settings | {"partzoo": partzoo.__version__}))
        self._earlier, self._asked, self._begun = _read_settings(folder / SETTINGS), resume, False
        if self._earlier is not None and (resume or (resume is None and _read_done(folder / DONE))):
            _check_same(self._earlier, self._settings, output)
        self._resumed = resume is not False and self._earlier == self._settings
        self._done: dict[tuple[str, str], dict[str, Any]] = _read_done(folder / DONE) if self._resumed else {}

    def begin(self) -> None:
        """Write the settings and the finished images; unless the run is resumed, nothing of an earlier run is kept.

        Raises:
            PartzooError: the folder cannot be created.
        """
        self._begun = True
        remove_leftovers(self.folder.parent)  # the lock of an output that is a folder removes those in it
        if sentence := self._what_becomes_of_earlier():
            click.echo(f"{self._output} {sentence}", err=True)
        if self._earlier is not None and not self._resumed:
            self.remove()
        make_folder(self.folder)
        with write_aside(self.folder / DONE) as file:  # rewritten, because a killed run may leave half a line
            file.write("".join(_line(*key, about) for key, about in self._done.items()).encode())
        with write_aside(self.folder / SETTINGS) as file:
            file.write(json.dumps({"format": FORMAT, "settings": self._settings}, indent=2).encode())

    def _what_becomes_of_earlier(self) -> str:
        """Describe what happens to an earlier run, for a message that begins with the output's name; may be empty."""
        if self._earlier is None:
            return "has no unfinished run to continue: the run starts from the beginning." if self._asked else ""
        if self._done and self._asked is None:
            many = counted(len(self._done), "image")
            return f"has results of {many} with the same settings, which are kept (--no-resume starts over)."
        return ""

    @property
    def vocabulary(self) -> Path:
        """File in which the run's vocabulary is kept, so that a resumed run numbers the parts as before."""
        return self.folder / VOCABULARY

    def done(self, source: str, file: Path) -> dict[str, Any] | None:
        """Return the record of an image whose result is in ``file``, or None if the image is not finished."""
        return self._done.get((source, file.name)) if file.exists() else None

    def add(self, source: str, file: Path, about: dict[str, Any]) -> None:
        """Record an image whose result has been written to ``file``."""
        self._done[source, file.name] = about
        with (self.folder / DONE).open("a", encoding="utf-8") as lines:
            lines.write(_line(source, file.name, about))

    def remove(self) -> None:
        """Delete the journal's folder with all its contents; a kill leaves it whole, or as a hidden leftover."""
        with contextlib.suppress(OSError), hidden_folder(self.folder) as old:
            os.rename(self.folder, old)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the folder if no image was finished."""
        if self._begun and not self._done and not self.vocabulary.exists():
            self.remove()


def unfinished(path: Path) -> Path:
    """Return the folder that holds an unfinished run's results, beside the file or folder they will be written to."""
    if path.name in ("", ".."):  # the current folder, or another that is not given by its name
        path = Path(os.path.abspath(path))
    return path.with_name(f"{path.name}.unfinished")


def file_for(folder: Path, source: str, suffix: str) -> Path:
    """Return the path in ``folder`` for one image's result; its name does not depend on the other images."""
    return folder / f"{hashlib.sha256(os.fsencode(source)).hexdigest()[:32]}{suffix}"


def _line(source: str, file: str, about: dict[str, Any]) -> str:
    return json.dumps({"source": source, "file": file, "about": about}) + "\n"


def _read_settings(file: Path) -> dict[str, Any] | None:
    """Read the settings of an earlier run, None if there is none; unreadable settings compare unequal to all others."""
    if not file.exists():
        return None
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
        return dict(found["settings"]) if found["format"] == FORMAT else {"format": found["format"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _read_done(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the complete lines of a journal."""
    found = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        try:
            entry = parse_json(line)
            found[entry["source"], entry["file"]] = dict(entry["about"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _check_same(earlier: dict[str, Any], settings: dict[str, Any], output: str) -> None:
    if found := sorted(changed(earlier, settings), key=itemgetter(0)):
        changes = ", ".join(f"{name} was {before}, is {after}" for name, before, after in found)
        raise UsageError(
            f"{output!r} has unfinished results of other settings ({changes}). Give the same settings, choose another "
            "-o, or replace the results with --no-resume."
        )
