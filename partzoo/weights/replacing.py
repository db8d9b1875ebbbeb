"""Replacing the files of a model's folder together, so that a kill leaves the old model or the new one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from partzoo.files import create_folder, path_aside, sync
from partzoo.locks import PREFIX, hidden_folder, locked

COMPLETE = f"{PREFIX}-new"  # folder of new files that are complete, but not all of them in their final places


def readable(folder: Path) -> Path:
    """Return the folder to read a model from: a folder itself, or the new files in it if a replacement was killed."""
    new = folder / COMPLETE
    return new if new.is_dir() else folder


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
