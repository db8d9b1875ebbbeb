"""Read the images in a tar."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from partzoo.errors import UsageError
from partzoo.files import reading
from partzoo.images.opening import SUFFIXES


class TarImage(bytes):
    """An encoded image from a tar.

    Attributes:
        name: path of the tar, and the name of the image in it.
    """

    name: str


def source_name(source: Path | TarImage) -> str:
    """Return the name of an image for messages: its path, or the name of its tar and its name in it."""
    return source.name if isinstance(source, TarImage) else str(source)


def tar_images(file: Path, choose: Callable[[Sequence[str]], Sequence[str]]) -> dict[str, TarImage]:
    """Read the encoded images in a tar, as a dictionary by name.

    Args:
        file: tar file, compressed or not.
        choose: function that selects, from the sorted names, those to read.

    Raises:
        UsageError: the file cannot be read as a tar.
    """
    with reading(file, UsageError, "cannot be read as a tar"), tarfile.open(file) as tar:
        found = {each.name: each for each in tar if each.isfile() and each.name.lower().endswith(SUFFIXES)}
        return {name: _content(file, tar, found[name]) for name in choose(sorted(found))}


def _content(file: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> TarImage:
    opened = tar.extractfile(member)
    if opened is None:
        raise OSError(f"{member.name} is not a file")
    image = TarImage(opened.read())
    image.name = f"{file}: {member.name}"
    return image
