"""Locks against a second writer, which the system releases when the process that holds them ends in any way."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from partzoo.errors import PartzooError, UsageError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and leftovers stay
    fcntl = None  # type: ignore[assignment]

PREFIX = ".partzoo"  # beginning of the names of all hidden files and folders of partzoo
NAME_BYTES = 200  # number of bytes of a file's name that a hidden name repeats, since file systems limit names to 255

TRIES, TRY_SECONDS = 5, 0.02


@contextlib.contextmanager
def locked(path: str | os.PathLike, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of an output, a folder or a file, for a block; leftovers of dead processes there are removed.

    The lock is a hidden file that names the process and its host: in the folder, or beside the file. A file system
    without locks, such as some network file systems, does not stop a second writer.

    Args:
        path: path of the output. A link to a folder has the folder's lock; a link to a file is replaced by what is
            written, and has a lock of its own.
        wait: whether to wait for another process that holds the lock; only for work of an instant.

    Raises:
        UsageError: another process holds the lock.
        PartzooError: the lock's file cannot be created.
    """
    path = Path(os.path.expanduser(path))
    inside = path.is_dir()
    path = path.resolve() if inside else path.parent.resolve() / path.name
    file = path / f"{PREFIX}.lock" if inside else path.with_name(f"{PREFIX}-{_short(path.name)}.lock")
    descriptor = _open_lock(file, path, wait)
    try:
        remove_leftovers(path if inside else path.parent)
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()  # before the lock is released: a process that has opened the file notices
        os.close(descriptor)


def _open_lock(file: Path, path: Path, wait: bool) -> int:
    """Create, open and lock a file, and write the process and its host into it."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise PartzooError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
        if not _lock_soon(descriptor, wait):
            holder = os.read(descriptor, 1000).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UsageError(
                f"{str(path)!r} is being written by {holder}. Wait until that has ended, or choose another place."
            )
        if _is_open_as(descriptor, file):
            break
        os.close(descriptor)  # the process that held the lock has deleted the file in between
    with contextlib.suppress(OSError):  # a full disk
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
    return descriptor


@contextlib.contextmanager
def hidden_folder(path: Path) -> Iterator[Path]:
    """Provide a new hidden folder beside ``path`` for a block; if the process is killed, the next start removes it.

    Raises:
        OSError: the folder cannot be created.
    """
    while True:
        folder = Path(tempfile.mkdtemp(".part", f"{PREFIX}-{_short(path.name)}.", path.parent))
        descriptor = _open(folder, folder=True)
        if descriptor is not None:
            _lock(descriptor, wait=True)
        if folder.is_dir() if descriptor is None else _is_open_as(descriptor, folder):
            break
        if descriptor is not None:  # another process took it for a leftover before it was locked
            os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder; what a living process writes stays."""
    for each in folder.glob(f"{PREFIX}-*.part"):
        descriptor = _open(each, folder=True)
        if descriptor is None:
            continue
        if _lock(descriptor, unknown=False):
            shutil.rmtree(each, ignore_errors=True)
        os.close(descriptor)
    for each in folder.glob(f"{PREFIX}-*.lock"):
        descriptor = _open(each)
        if descriptor is None:
            continue
        if _lock(descriptor, unknown=False) and _is_open_as(descriptor, each):
            with contextlib.suppress(OSError):
                each.unlink()
        os.close(descriptor)


def _short(name: str) -> str:
    return os.fsencode(name)[:NAME_BYTES].decode(errors="ignore")


def _open(path: Path, *, folder: bool = False) -> int | None:
    """Open a file or a folder in order to lock it; None if that is impossible."""
    if fcntl is None:
        return None
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_DIRECTORY if folder else 0))
    except OSError:
        return None


def _lock(descriptor: int, *, wait: bool = False, unknown: bool = True) -> bool:
    """Lock an open file or folder, and return whether that succeeded; ``unknown`` if the system has no such locks."""
    if fcntl is None:
        return unknown
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return unknown
    return True


def _lock_soon(descriptor: int, wait: bool) -> bool:
    """Lock an open file, for which :func:`remove_leftovers` of another process may hold the lock for an instant."""
    for _ in range(TRIES):
        if _lock(descriptor, wait=wait):
            return True
        time.sleep(TRY_SECONDS)
    return False


def _is_open_as(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
