"""Replacing the files of a model's folder together, so that a kill leaves the old model or the new one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

from partzoo.errors import WeightsError
from partzoo.files import create_folder, path_aside, sync
from partzoo.locks import PREFIX, hidden_folder, locked

T = TypeVar("T")
COMPLETE = f"{PREFIX}-new"  # folder of new files that are complete, but not all of them in their final places


def readable(folder: Path) -> Path:
    """Return the folder to read a model from: a folder itself, or the new files in it if a replacement was killed."""
    new = folder / COMPLETE
    return new if new.is_dir() else folder


def read_undisturbed(path: Path, read: Callable[[], T]) -> T:
    """Call a function that reads a model, again if it fails because another process replaces the folder's model.

    Args:
        path: path of the model; only a folder is watched.
        read: function that reads it.

    Raises:
        WeightsError: the function fails, and the folder has not changed in the meantime.
    """
    while True:
        before = _last_change(path)
        try:
            return read()
        except WeightsError:
            if _last_change(path) == before:
                raise


def _last_change(path: Path) -> int | None:
    """Return when a folder was changed last, in nanoseconds; None if it is not a folder."""
    try:
        return path.stat().st_mtime_ns if path.is_dir() else None
    except OSError:
        return None


@contextlib.contextmanager
def replaced_together(folder: Path, stale: Collection[str]) -> Iterator[Path]:
    """Provide an empty folder; if the block ends without an error, its files replace those of ``folder``.

    Args:
        folder: folder to write, created if necessary.
        stale: names of files to delete from it unless the new files have them.

    Raises:
        OSError: a file cannot be written.
        PartzooError: another process is writing the folder.
    """
    create_folder(folder)
    with locked(folder):
        _finish(folder, stale)
        with hidden_folder(folder / "model") as new:
            yield new
            new.chmod(folder.stat().st_mode)
            os.rename(new, folder / COMPLETE)  # from now on, the new model is read
        sync(folder)
        _finish(folder, stale)


def _finish(folder: Path, stale: Collection[str]) -> None:
    """Move complete new files to their final places."""
    new = folder / COMPLETE
    if not new.is_dir():
        return
    names = {each.name for each in new.iterdir() if not each.name.startswith(PREFIX)}  # which a power cut may leave
    for name in sorted(names):
        with path_aside(folder / name) as aside:
            aside.unlink()
            link_or_copy(new / name, aside)
    for name in set(stale) - names:
        (folder / name).unlink(missing_ok=True)
    with hidden_folder(folder / "model") as old:
        os.rename(new, old)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
