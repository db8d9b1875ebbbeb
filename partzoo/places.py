"""Check before the work starts that its results can be written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from partzoo.errors import PartzooError, UsageError
from partzoo.files import create_folder, expand_user


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents.

    Raises:
        PartzooError: the folder cannot be created.
    """
    try:
        create_folder(folder)
    except OSError as error:
        raise PartzooError(
            f"The folder {str(folder)!r} cannot be made: {error.strerror}. Choose another with out=."
        ) from error


@contextlib.contextmanager
def made_folder(folder: Path | None) -> Iterator[None]:
    """Create a folder and its missing parents for a block; those that are still empty at its end are removed again.

    Raises:
        PartzooError: the folder cannot be created.
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
    """Raise before the work starts, rather than after it, if a file cannot be written.

    Raises:
        PartzooError: the folder does not exist, or the user may not write in it.
    """
    path = expand_user(path)
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise PartzooError(
            f"Cannot write {str(path)!r}: there is no folder {str(folder)!r}. Make it, or choose another."
        )
    if not os.access(folder, os.W_OK):
        raise PartzooError(f"Cannot write {str(path)!r}: you may not write in {str(folder)!r}. Choose another place.")


def check_apart(outputs: Iterable[str | os.PathLike | None], inputs: Iterable[str | os.PathLike | None]) -> None:
    """Refuse outputs that would replace an input, no matter by which paths and links the two are given.

    Args:
        outputs: files that will be written.
        inputs: files that are read, or models' folders, all of whose files are; names that are not files, such as
            addresses and names of models, are ignored.

    Raises:
        UsageError: an output is one of the inputs.
    """
    read = {identity: path for given in inputs for path in _files_of(given) if (identity := _identity(path))}
    for path in outputs:
        if (identity := _identity(path)) in read:
            raise UsageError(
                f"{str(path)!r} would replace {str(read[identity])!r}, which is an input. Choose another place."
            )


def check_distinct(outputs: Iterable[str | os.PathLike | None], other: str | os.PathLike | None) -> None:
    """Refuse another output in the place of one.

    Raises:
        UsageError: they have the same place.
    """
    if other is not None and os.path.realpath(expand_user(other)) in {
        os.path.realpath(expand_user(each)) for each in outputs if each is not None
    }:
        raise UsageError(f"{str(other)!r} is named for two outputs. Choose another place for one of them.")


def _files_of(path: str | os.PathLike | None) -> Iterator[str | os.PathLike]:
    """Yield a path and, if it is a folder, the paths in it."""
    if path is None:
        return
    path = os.fsdecode(path).removeprefix("local-dir:")
    yield path
    with contextlib.suppress(OSError, ValueError):
        yield from Path(os.path.expanduser(path)).iterdir()


def _identity(path: str | os.PathLike | None) -> tuple[int, int] | None:
    """Return a value that is the same for all names of one file, or None if there is no such file."""
    if path is None:
        return None
    try:
        status = os.stat(os.path.expanduser(path))
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
