"""Memory of the files that were compared with their digests, so that large ones are not read again at every load."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from partzoo.errors import PartzooError
from partzoo.files import create_folder, expand_user, parse_json, path_aside
from partzoo.locks import locked


def digest_of(path: Path, expected: str, compute: Callable[[], str], *, remembered: bool = True) -> str:
    """Return a file's digest, which is computed, or known because the file has not changed since it was compared.

    Args:
        path: path of the file.
        expected: digest that the file should have. A file that has it is remembered by size, time and inode, and one
            that does not have it is forgotten.
        compute: function that reads the file and returns its digest.
        remembered: whether a file that was compared before and has not changed since may go unread.

    Raises:
        OSError: the file cannot be read.
    """
    found = path.stat()
    key, mark = os.path.abspath(path), [found.st_size, found.st_mtime_ns, found.st_ino, expected]
    if remembered and _notes().get(key) == mark:
        return expected
    if (digest := compute()) == expected:
        _note(key, mark)
    else:
        _note(key, None)
    return digest


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return partzoo's cache folder: PARTZOO_CACHE, or ``partzoo`` in XDG_CACHE_HOME or ``~/.cache``."""
    if own := os.environ.get("PARTZOO_CACHE"):
        return expand_user(own)
    return expand_user(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "partzoo"


def _notes() -> dict[str, list]:
    try:
        content = parse_json((cache_folder() / "verified.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _note(key: str, mark: list | None) -> None:
    """Remember a file's mark, or forget it; if that cannot be written, the file is read again next time."""
    if _notes().get(key) == mark:
        return
    memo = cache_folder() / "verified.json"
    try:
        create_folder(memo.parent)
        # Without the lock, a process that remembers one file could bring back what another has just forgotten.
        with locked(memo, wait=True):
            kept = {each: value for each, value in _notes().items() if each != key}
            with path_aside(memo) as aside:
                aside.write_text(json.dumps(kept if mark is None else kept | {key: mark}), encoding="utf-8")
    except (OSError, PartzooError):
        return
