"""Places to write to, which are checked before the work and not after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from partzoo.errors import PartzooError, UsageError


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where there are none.

    Raises:
        PartzooError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PartzooError(
            f"The folder {str(folder)!r} cannot be made: {error.strerror}. Choose another with -o."
        ) from error


@contextlib.contextmanager
def made_folder(folder: Path | None) -> Iterator[None]:
    """Make a folder and those above it for the time of a block; what is still empty at its end is removed again.

    Raises:
        PartzooError: it cannot be made.
    """
    new = [] if folder is None else [each for each in (folder, *folder.parents) if not each.exists()]
    if folder is not None:
        make_folder(folder)
    try:
        yield
    finally:
        for each in new:
            with contextlib.suppress(OSError):  # it is not empty
                each.rmdir()


def check_place(path: Path) -> None:
    """Fail before the work, not after it, where a file cannot be written."""
    path = path.expanduser()
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise PartzooError(
            f"Cannot write {str(path)!r}: there is no folder {str(folder)!r}. Make it, or choose another."
        )
    if not os.access(folder, os.W_OK):
        raise PartzooError(f"Cannot write {str(path)!r}: you may not write in {str(folder)!r}. Choose another place.")


def check_apart(outputs: Iterable[str | os.PathLike | None], inputs: Iterable[str | os.PathLike | None]) -> None:
    """Refuse to write over what is read, by whatever names and links the two are given.

    Args:
        outputs: files that will be written.
        inputs: files that are read; names of anything else, such as addresses and models, are left alone.

    Raises:
        UsageError: an output is one of the inputs.
    """
    read = {identity: path for path in inputs if (identity := _identity(path))}
    for path in outputs:
        if (identity := _identity(path)) in read:
            raise UsageError(
                f"{str(path)!r} would be written over {str(read[identity])!r}, which is read. Choose another place."
            )


def _identity(path: str | os.PathLike | None) -> tuple[int, int] | None:
    """What two names of one file have in common; None where there is no such file."""
    if path is None:
        return None
    try:
        status = os.stat(os.path.expanduser(path))
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
