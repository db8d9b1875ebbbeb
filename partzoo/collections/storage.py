"""Read files on this machine and at addresses that fsspec knows (``s3://``, ``gs://``, ``hf://``) alike."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from partzoo.errors import ImageError, UsageError, cause_of, require, restated
from partzoo.files import ADDRESS, check_regular, expand_user
from partzoo.images.finding import files_below, files_matching
from partzoo.limits import MAX_BYTES, SCHEMES

WILDCARDS = "*?["


def scheme_of(address: str) -> str:
    """Return the scheme of an address in lower case, or an empty string for a path on this machine."""
    found = ADDRESS.match(address)
    return found[1].lower() if found else ""


def is_elsewhere(address: str) -> bool:
    """Return whether an address is read with fsspec: neither a path nor an address of the web."""
    return scheme_of(address) not in ("", *SCHEMES)


def plain(address: str | os.PathLike) -> str:
    """Return an address as text, and one that begins with ``file://`` as the path it stands for."""
    text = os.fsdecode(address)
    return unquote(urlsplit(text).path) if scheme_of(text) == "file" else text


def full(address: str | os.PathLike) -> str:
    """Return an address that means the same in every process: a path is made absolute."""
    text = plain(address)
    return text if scheme_of(text) else os.path.abspath(expand_user(text))


def joined(folder: str, name: str) -> str:
    """Return the address of a file that is named relative to a folder; a full path or address stays as it is."""
    name = plain(name)
    if scheme_of(name) or os.path.isabs(name):
        return name
    return f"{folder.rstrip('/')}/{name}" if scheme_of(folder) else os.path.join(folder, name)


def folder_of(address: str) -> str:
    """Return the folder that holds a file."""
    return address.rpartition("/")[0] if scheme_of(address) else str(expand_user(address).parent)


def last_name(address: str) -> str:
    """Return the last component of an address."""
    return PurePosixPath(address).name if scheme_of(address) else Path(address).name


def opened(address: str) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: it does not exist or cannot be read.
        MissingExtraError: fsspec, or the library that it needs for this kind of address, is not installed.
    """
    if not scheme_of(address):
        file = expand_user(address)
        check_regular(file)
        return file.open("rb")
    files, path = system(address)
    return cast(BinaryIO, files.open(path, "rb"))


def exists(address: str) -> bool:
    """Return whether there is such a file or folder."""
    if not scheme_of(address):
        return expand_user(address).exists()
    files, path = system(address)
    return files.exists(path)


def is_folder(address: str) -> bool:
    """Return whether an address is that of a folder."""
    if not scheme_of(address):
        return expand_user(address).is_dir()
    files, path = system(address)
    return files.isdir(path)


def list_files(address: str) -> dict[str, str]:
    """List the visible files below a folder or those that match a pattern, sorted.

    Returns:
        The address of each file, by its path from the folder or from the part of the pattern without wildcards. The
        paths have slashes on every system, so that they do not depend on where the folder lies.
    """
    base = fixed_part(address)
    if not scheme_of(address):
        place, below = expand_user(address), expand_user(base)
        found = files_below(place) if place.is_dir() else files_matching(place)
        return dict(sorted((Path(os.path.relpath(file, below)).as_posix(), str(file)) for file in found))
    files, path = system(address)
    names = files.find(path) if files.isdir(path) else [each for each in files.glob(path) if files.isfile(each)]
    root = system(base)[1].rstrip("/")
    keys = ((each.removeprefix(root).lstrip("/"), files.unstrip_protocol(each)) for each in names)
    return dict(sorted((key, full) for key, full in keys if not any(p.startswith(".") for p in key.split("/"))))


def sizes(address: str) -> dict[str, int]:
    """Return the size of a file under an empty name, or those of all files in a folder by their path from it.

    Raises:
        FileNotFoundError: there is nothing at this address.
    """
    if not scheme_of(address):
        place = Path(address)
        if not place.is_dir():
            return {"": place.stat().st_size}
        below = (each for each in place.rglob("*") if each.is_file())
        return {each.relative_to(place).as_posix(): each.stat().st_size for each in below}
    files, path = system(address)
    about = files.info(path)
    if about["type"] != "directory":
        return {"": about["size"]}
    found = files.find(path, detail=True).items()
    return {name.removeprefix(path.rstrip("/")).lstrip("/"): about["size"] for name, about in found}


def entries(address: str) -> set[str]:
    """Return the names of the files and folders in a folder; none if it does not exist."""
    if not scheme_of(address):
        place = Path(address)
        return {each.name for each in place.iterdir()} if place.is_dir() else set()
    files, path = system(address)
    files.invalidate_cache()  # another process may have written there
    try:
        return {PurePosixPath(each).name for each in files.ls(path, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def fixed_part(address: str) -> str:
    """Return the folder of a pattern below which all matches lie; of a folder, the folder itself."""
    if is_folder(address):
        return address
    components = address.split("/")
    first = next((i for i, each in enumerate(components) if any(c in each for c in WILDCARDS)), len(components) - 1)
    return "/".join(components[:first]) or ("/" if address.startswith("/") else ".")


def system(address: str) -> tuple[Any, str]:
    """Return the file system of fsspec that an address is of, and the path in it.

    Raises:
        UsageError: the library that this kind of address needs is not installed.
        MissingExtraError: fsspec is not installed.
    """
    require("fsspec", "collections")
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{address!r} cannot be reached ({cause_of(error)}): install the library it needs.") from error


@dataclass(frozen=True)
class Stored:
    """An encoded image that lies in a file, whole or as a range of bytes, and is read only when it is needed.

    Attributes:
        address: path or address of the file.
        name: name of the image in messages.
        start: position of the first byte.
        length: number of bytes; None is all up to the end of the file.
    """

    address: str
    name: str
    start: int = 0
    length: int | None = None

    def read(self, max_bytes: int = MAX_BYTES) -> bytes:
        """Return the bytes, or the first ones of more than ``max_bytes``, which :func:`open_image` then refuses.

        Raises:
            ImageError: the file cannot be read, or ends before the range does.
        """
        count = max_bytes + 1 if self.length is None else min(self.length, max_bytes + 1)
        with restated(self.name, lambda error: ImageError(f"{self.name} cannot be read ({cause_of(error)}).")):
            data = _range(self.address, self.start, self.start + count)
            if self.length is not None and len(data) < count:
                raise ImageError(f"{self.name} is truncated: it has {len(data):,} of {self.length:,} bytes.")
        return data


def image_at(address: str) -> str | Stored:
    """Return a path or an address of the web unchanged, and another address as a file that fsspec opens later."""
    return Stored(address, address) if is_elsewhere(address) else address


def _range(address: str, start: int, stop: int) -> bytes:
    """Return the bytes of a file between two places, or up to its end."""
    if scheme_of(address):
        files, path = system(address)
        return files.cat_file(path, start=start, end=stop)  # which fetches no block around them
    with opened(address) as file:
        file.seek(start)
        return file.read(stop - start)
