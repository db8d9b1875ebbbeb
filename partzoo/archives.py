"""Check what an archive's members declare, before anything is unpacked."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

from partzoo.errors import UsageError
from partzoo.limits import MAX_MEMBERS, MAX_RATIO, MAX_UNPACKED, SMALL_UNPACKED


class Members:
    """The members of an archive, counted as they are listed.

    Args:
        path: the archive.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path, self.packed = path, os.stat(path).st_size
        self.count = self.unpacked = 0

    def add(self, size: int) -> None:
        """Count a member that declares a number of bytes.

        Raises:
            UsageError: there are too many members or bytes, or too many bytes for the size of the archive.
        """
        self.count += 1
        self.unpacked += size
        if self.count > MAX_MEMBERS:
            raise UsageError(f"{self.path} has more than {MAX_MEMBERS:,} members, the limit.")
        if self.unpacked > MAX_UNPACKED:
            raise UsageError(f"{self.path} has members of more than {MAX_UNPACKED:,} bytes together, the limit.")
        if self.unpacked > max(SMALL_UNPACKED, MAX_RATIO * self.packed):
            raise UsageError(
                f"{self.path} has {self.packed:,} bytes, its members more than {MAX_RATIO} times as many, the limit."
            )


def check_end(tar: tarfile.TarFile, path: str | os.PathLike) -> None:
    """Check that a tar, whose members have all been listed, ends there by its own account.

    tarfile, as other readers, takes a header that it cannot read for the end, and also the end of a file that was cut.
    Only files that are not compressed are checked: others have checksums, and reading them twice is slow.

    Raises:
        UsageError: the block after the last member is not the end of a tar.
    """
    if tar.fileobj is None or isinstance(tar.fileobj, (bz2.BZ2File, gzip.GzipFile, lzma.LZMAFile)):
        return
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise UsageError(
            f"{path} is damaged, or was cut short, after {len(tar.getmembers()):,} members: get it again, or repack it."
        )


def check_zip(path: str | os.PathLike, most: int = SMALL_UNPACKED) -> None:
    """Check that the members of a zip file, such as ``.npz``, have at most a number of bytes together.

    Their ratio to the file's size is not limited, because labels of large images shrink a thousandfold.

    Raises:
        UsageError: they have more.
        zipfile.BadZipFile: it is not a zip file.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > most:
            raise UsageError(f"{path} has members of more than {most:,} bytes together, the limit.")


def is_stored_plainly(path: Path) -> bool:
    """Return whether no member of a zip file is compressed, and no two share bytes: unpacked, it does not grow."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    return plain and sum(member.file_size for member in members) <= path.stat().st_size
