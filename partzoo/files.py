"""Atomic writing: a file is written under a temporary name beside its final one, then renamed."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from partzoo.errors import PartzooError

NAME_BYTES = 200  # of a file's name that the file beside it shares


@contextlib.contextmanager
def path_aside(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``, which is renamed to ``path`` when the block ends without an error.

    Use this for libraries that take a file name; errors pass through unchanged. :func:`write_aside` gives an open file.
    """
    path = Path(path).expanduser()
    # Two processes or threads that write the same file must not share a temporary one. File systems take names of up to
    # 255 bytes, which a long name with more at its end would exceed.
    short = os.fsencode(path.name)[:NAME_BYTES].decode(errors="ignore")
    aside = path.with_name(f".{short}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        aside.touch()
        mode = aside.stat().st_mode  # the umask's; safetensors would leave a file that only its owner may read
        yield aside
        aside.chmod(mode)
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


@contextlib.contextmanager
def write_aside(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a binary file for writing, which gets its final name when the block ends without an error.

    Raises:
        PartzooError: the file cannot be written.
    """
    try:
        with path_aside(path) as aside, aside.open("wb") as file:
            yield file
    except OSError as error:
        raise PartzooError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error


def check_version(written: Any, known: int, name: str, error: type[PartzooError]) -> None:
    """Refuse a file of a newer format than this partzoo knows.

    Args:
        written: number of the format that the file states; None where it states none, as the first files did.
        known: the newest format that is read.
        name: name of the file in the message.
        error: class of the error.

    Raises:
        error: the file is newer, or what it states is not a number.
    """
    if written is None:
        return
    try:
        number = int(written)
    except (TypeError, ValueError):
        raise error(f"{name} states the format {written!r:.40}, which is not a number: write the file anew.") from None
    if number > known:
        raise error(
            f"{name} was written by a newer version of partzoo (format {number}; this one reads up to {known}): "
            "upgrade partzoo."
        )


def stand_in(begin: bytes) -> str | None:
    """What a file holds in place of its content, and what to do, judged by its first bytes; None if nothing is known.

    A clone without Git LFS holds pointers, and a download through a login or an error page holds HTML.
    """
    start = begin[:256].lstrip().lower()
    if start.startswith(b"version https://git-lfs.github.com/"):
        return "is a pointer of Git LFS, not the file itself: run 'git lfs pull' in the clone"
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "is a web page, not the file itself: download it again, signed in where that is needed"
    if not begin:
        return "is empty: fetch it again"
    return None


def stand_in_of(path: str | os.PathLike) -> str | None:
    """What :func:`stand_in` says of a file, for the message of an error; None also where the file cannot be opened."""
    try:
        return stand_in(begin_of(path))
    except OSError:
        return None


def begin_of(path: str | os.PathLike) -> bytes:
    """The first bytes of a file, for :func:`stand_in`."""
    with open(path, "rb") as file:
        return file.read(256)
