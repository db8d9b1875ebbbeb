"""Read the images in a tar."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from partzoo.archives import Members, check_end
from partzoo.errors import UsageError
from partzoo.files import reading
from partzoo.images.opening import SUFFIXES
from partzoo.limits import MAX_BYTES


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
        UsageError: the file cannot be read as a tar, or exceeds a limit.
    """
    with reading(file, UsageError, "cannot be read as a tar"), tarfile.open(file) as tar:
        found = {each.name: each for each in listed(tar, file) if each.name.lower().endswith(SUFFIXES)}
        return {name: _content(file, tar, found[name]) for name in choose(sorted(found))}


def listed(tar: tarfile.TarFile, file: Path) -> Iterator[tarfile.TarInfo]:
    """List the files in a tar, which a hostile one may declare to be huge.

    Raises:
        UsageError: there are too many, or they are too large (:class:`partzoo.archives.Members`), or the tar does not
            end with them.
    """
    members = Members(file)
    for member in tar:
        members.add(member.size)
        if member.isfile():
            yield member
    check_end(tar, file)


def _content(file: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> TarImage:
    if member.size > MAX_BYTES:
        raise UsageError(f"{file}: {member.name} has more than {MAX_BYTES:,} bytes, the limit.")
    opened = tar.extractfile(member)
    if opened is None:
        raise OSError(f"{member.name} is not a file")
    image = TarImage(opened.read())
    image.name = f"{file}: {member.name}"
    return image
