"""Write files atomically: in a hidden folder beside the final place, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

from partzoo.errors import PartzooError, UsageError, cause_of, restated
from partzoo.locks import hidden_folder

if TYPE_CHECKING:
    import numpy as np

MAX_JSON_BYTES = 2**26
MAX_NESTING = 100  # arrays and tables within each other in TOML
ADDRESS = re.compile("([A-Za-z][A-Za-z0-9+.-]+)://")  # a drive of Windows has one letter


def expand_user(path: str | os.PathLike) -> Path:
    """Replace a leading ``~`` or ``~user`` with the home folder; a path with an unknown user is returned unchanged.

    Raises:
        UsageError: the path is empty, which ``Path`` would take for the current folder, or is an address.
    """
    text = os.fsdecode(path)
    if not text:
        raise UsageError("A path is empty: name a file or a folder.")
    if address := ADDRESS.match(text):
        if address[1].lower() == "file":
            raise UsageError(f"{text!r} is an address: pass the path, {unquote(urlsplit(text).path)!r}.")
        raise UsageError(f"{text!r} is an address: pass the path of a file or a folder on this machine.")
    return Path(os.path.expanduser(text))


def create_folder(folder: Path) -> None:
    """Create a folder and its missing parents, which survive a power cut.

    Raises:
        OSError: it cannot be created, or it begins with the ``~`` of an unknown user, which :func:`expand_user` leaves.
    """
    if str(folder).startswith("~"):
        raise OSError(errno.ENOENT, "it begins with an unknown user's name: correct it, or begin it with './'")
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync(each.parent)


def check_regular(path: str | os.PathLike) -> None:
    """Refuse pipes, sockets and devices, which would block a reader for ever.

    Raises:
        OSError: the path is missing, or is neither a file nor a folder.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, socket or device, not a file", os.fspath(path))


@contextlib.contextmanager
def reading(
    path: str | os.PathLike,
    error: type[PartzooError] = PartzooError,
    problem: str = "is damaged",
    fix: str = "download it again",
) -> Iterator[None]:
    """Turn any error of a block that reads a file into one sentence with the file's path and the cause.

    Args:
        path: path of the file, of which :func:`stand_in` may know a better cause.
        error: class of the error to raise.
        problem: what is wrong with the file.
        fix: what to do about it.

    Raises:
        error: the file is missing or a pipe, or the block fails; errors of partzoo that name the file pass through.
    """
    path = expand_user(path)

    def restate(cause: Exception) -> PartzooError:
        if isinstance(cause, FileNotFoundError) and not os.path.lexists(path):
            return error(f"No such file: {os.fspath(path)!r}. Check the path.")
        # From the system, not from a library that found a place in the file that cannot be.
        if isinstance(cause, OSError) and (cause.filename is not None or cause.errno not in (None, errno.EINVAL)):
            return error(f"Cannot read {os.fspath(path)!r}: {cause_of(cause)}.")
        return error(f"{os.fspath(path)} {stand_in_of(path) or f'{problem} ({cause_of(cause)}): {fix}'}.")

    with restated(os.fspath(path), restate):
        check_regular(path)
        yield


@contextlib.contextmanager
def path_aside(path: str | os.PathLike) -> Iterator[Path]:
    """Provide a temporary path near ``path``, which is renamed to ``path`` if the block ends without an error.

    The renamed file survives a power cut. Use this for libraries that take a file name; errors pass through unchanged.
    :func:`write_aside` opens a file.
    """
    path = expand_user(path)
    # In a folder: libraries may create other temporary files beside the one whose name they are given.
    with hidden_folder(path) as folder:
        aside = folder / path.name
        aside.touch()
        mode = aside.stat().st_mode  # as set by the umask; safetensors would make the file readable by its owner only
        yield aside
        aside.chmod(mode)
        # In this order, a power cut leaves the old file or the whole new one.
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)


@contextlib.contextmanager
def write_aside(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a binary file for writing, which gets its final name if the block ends without an error.

    Raises:
        PartzooError: the file cannot be written.
    """
    try:
        with path_aside(path) as aside, aside.open("wb") as file:
            yield file
    except OSError as error:
        raise PartzooError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error


def write_npz(stream: BinaryIO, arrays: Iterable[tuple[str, np.ndarray]], *, compress: bool = False) -> None:
    """Write arrays as ``numpy.savez`` does, or with ``compress`` as ``numpy.savez_compressed``.

    They are written one after the other, so that an iterator can read them.
    """
    import numpy as np

    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_if_changed(path: str | os.PathLike, content: bytes) -> None:
    """Write a file, as :func:`write_aside` does, unless it already has this content.

    Raises:
        PartzooError: the file cannot be written.
    """
    path = expand_user(path)
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    with write_aside(path) as file:
        file.write(content)


def sync(path: Path) -> None:
    """Wait until the disk has stored a file's content, or a folder's names, so that they survive a power cut."""
    windows = os.name == "nt"
    if path.is_dir() and (windows or not os.access(path, os.R_OK)):  # such folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # from file systems that have no such operation
            raise
    finally:
        os.close(descriptor)


def fingerprint(name: str | None) -> str | None:
    """Return a name and, if it names a file or a folder, a digest of the contents."""
    if name is None or not (path := expand_user(name)).exists():
        return name
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(os.fsencode(file.name) + hashlib.file_digest(stream, "sha256").digest())
    return f"{name} sha256:{digest.hexdigest()}"


def check_version(written: Any, known: int, name: str, error: type[PartzooError]) -> None:
    """Refuse a file in a newer format than this version of partzoo reads.

    Args:
        written: format number that the file states; None if it states none, as in the first files.
        known: newest format that this version reads.
        name: name of the file in the message.
        error: class of the error to raise.

    Raises:
        error: the file is newer, or its stated format is not a number.
    """
    if written is None:
        return
    try:
        number = int(written)
    except (TypeError, ValueError):
        raise error(f"{name} states the format {written!r:.40}, which is not a number: recreate the file.") from None
    if number > known:
        raise error(
            f"{name} was written by a newer version of partzoo (format {number}; this one reads up to {known}): "
            "upgrade partzoo."
        )


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that was written elsewhere.

    Raises:
        ValueError: it is not JSON, or is nested more deeply than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML that was written elsewhere.

    Brackets are counted before: tomllib follows them by recursion, and at Python's limit even the clean-up of an error
    can fail, which Python then prints.

    Raises:
        ValueError: it is not TOML, or has more than :data:`MAX_NESTING` open brackets at some place.
    """
    if max(accumulate((each in "[{") - (each in "]}") for each in text), default=0) > MAX_NESTING:
        raise ValueError("it is nested too deeply")
    return tomllib.loads(text)


def read_json(path: Path) -> Any:
    """Read a JSON file that describes a model, not data.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, is nested too deeply, or has more than :data:`MAX_JSON_BYTES`.
    """
    check_regular(path)
    with path.open("rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"it has more than {MAX_JSON_BYTES:,} bytes")
    return parse_json(data.decode())


def stand_in(begin: bytes) -> str | None:
    """Describe what a file contains if it is not its real content, and how to get that; None if the file looks right.

    A clone without Git LFS holds pointers, and a download from behind a login or error page holds HTML.
    """
    start = begin[:256].lstrip().lower()
    if start.startswith(b"version https://git-lfs.github.com/"):
        return "is a pointer of Git LFS, not the file itself: run 'git lfs pull' in the clone"
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "is a web page, not the file itself: download it again, signed in where that is needed"
    if begin.startswith(b"\x1f\x8b"):
        return "is compressed with gzip, not the file itself: decompress it with gunzip"
    if not begin:
        return "is empty: download it again"
    return None


def stand_in_of(path: str | os.PathLike) -> str | None:
    """Return what :func:`stand_in` says of a file, for an error's message; None also if it cannot be opened."""
    try:
        return stand_in(begin_of(path))
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return None


def begin_of(path: str | os.PathLike) -> bytes:
    """Read the first bytes of a file, for :func:`stand_in`."""
    check_regular(path)
    with open(path, "rb") as file:
        return file.read(256)
