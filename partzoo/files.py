"""Files that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from partzoo.errors import PartzooError

NAME_BYTES = 200  # of a file's name that the file beside it shares


@contextlib.contextmanager
def path_aside(path: str | os.PathLike) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its name when the block ends without an error.

    This is for libraries that write to a name; errors pass through as they are. :func:`write_aside` gives a file.
    """
    path = Path(path).expanduser()
    # Processes and threads that write the same file must not write into each other's. File systems take names of up to
    # 255 bytes, which a long name with more at its end would exceed.
    short = os.fsencode(path.name)[:NAME_BYTES].decode(errors="ignore")
    aside = path.with_name(f".{short}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        aside.touch()
        mode = aside.stat().st_mode  # set by the umask; safetensors makes files that only their owner may read
        yield aside
        aside.chmod(mode)
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


@contextlib.contextmanager
def write_aside(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file to write, which takes its name when the block ends without an error.

    Raises:
        PartzooError: the place cannot be written.
    """
    try:
        with path_aside(path) as aside, aside.open("wb") as file:
            yield file
    except OSError as error:
        raise PartzooError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
