"""Where a result lies: a folder of a file system, or an address of fsspec. What is written there appears when whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from partzoo.collections.storage import entries, full, joined, opened, scheme_of, sizes, system
from partzoo.errors import PartzooError, UsageError, cause_of, restated
from partzoo.files import create_folder, path_aside, sync
from partzoo.limits import SCHEMES
from partzoo.locks import PREFIX, hidden_folder, locked, remove_leftovers
from partzoo.places import made_folder
from partzoo.weights.checked import cache_folder


@dataclass(frozen=True)
class Destination(ABC):
    """The place of a result, whose names have slashes: each is that of a file, or of a folder that is written at once.

    Attributes:
        address: path or address of the folder of the result.
    """

    address: str

    @abstractmethod
    def held(self) -> AbstractContextManager[None]:
        """Return a context that keeps other runs from writing here, and removes what killed ones have left.

        Raises:
            UsageError: another process writes here.
            PartzooError: the folder cannot be written.
        """

    @abstractmethod
    def aside(self, name: str, *, folder: bool = False) -> AbstractContextManager[Path]:
        """Return a context with the path of an empty file, or folder, which gets its name if the block ends well.

        Raises:
            OSError: it cannot be written.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens if there is none."""

    def at(self, name: str) -> str:
        """Return the path or address of a name."""
        return joined(self.address, name)

    def names(self, folder: str) -> set[str]:
        """Return the names of the files and folders in a folder of the result; none if there is no such folder."""
        return entries(self.at(folder))

    def size(self, name: str) -> int | None:
        """Return the size of a file, or of all files in a folder; None if there is none."""
        try:
            return sum(sizes(self.at(name)).values())
        except OSError:
            return None

    def measured(self, name: str) -> tuple[int, str]:
        """Return the size and the sha256 of a file; of a folder, the sha256 is that of its files' names and digests.

        Raises:
            FileNotFoundError: there is none.
        """
        found = sizes(self.at(name))
        digests = {each: self._sha256(f"{name}/{each}" if each else name) for each in sorted(found)}
        if "" in found:
            return found[""], digests[""]
        lines = "".join(f"{digest} {each}\n" for each, digest in digests.items())
        return sum(found.values()), hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none.

        Raises:
            PartzooError: it cannot be read.
        """
        address = self.at(name)
        with restated(address, lambda error: PartzooError(f"Cannot read {address!r}: {cause_of(error)}.")):
            try:
                with opened(address) as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file.

        Raises:
            PartzooError: it cannot be written.
        """
        try:
            with self.aside(name) as path:
                path.write_bytes(data)
        except OSError as error:
            raise PartzooError(f"Cannot write {self.at(name)!r}: {cause_of(error)}.") from error

    def _sha256(self, name: str) -> str:
        with opened(self.at(name)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # which has readinto


class Folder(Destination):
    """A folder on this machine, or of a file system that all workers share."""

    @contextmanager
    def held(self) -> Iterator[None]:
        path = Path(self.address)
        with made_folder(path), locked(path):
            for below in path.glob("*/"):  # the lock removes those in the folder itself
                remove_leftovers(below)
            yield

    @contextmanager
    def aside(self, name: str, *, folder: bool = False) -> Iterator[Path]:
        path = Path(self.address, name)
        create_folder(path.parent)
        if not folder:
            with path_aside(path) as aside:
                yield aside
            return
        with hidden_folder(path) as hidden:
            new = hidden / path.name
            new.mkdir()
            yield new
            for above, _, files in os.walk(new):
                for each in (*files, "."):
                    sync(Path(above, each))
            shutil.rmtree(path, ignore_errors=True)  # a killed worker has written the same already
            os.rename(new, path)
            sync(path.parent)

    def remove(self, name: str) -> None:
        path = Path(self.address, name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class Remote(Destination):
    """A folder at an address of fsspec, to which complete files are uploaded.

    A file is uploaded under a hidden name, and then moved. What an object store calls a move is a copy, of which
    readers see all or nothing. The files of a folder are uploaded one by one, so that readers may see some of them.
    """

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep out other runs of this user on this machine; there is no lock against other machines."""
        lock = cache_folder() / "written" / quote(self.address, safe="")
        with self._writing(self.address):
            create_folder(lock.parent)
        with locked(lock):
            for folder in ("", *sorted(self.names(""))):
                for each in self.names(folder):
                    if each.startswith(f"{PREFIX}-"):
                        self.remove(f"{folder}/{each}" if folder else each)
            yield

    @contextmanager
    def aside(self, name: str, *, folder: bool = False) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="partzoo-") as place:
            new = Path(place, name.rpartition("/")[2])
            new.mkdir() if folder else new.touch()
            yield new
            with self._writing(self.at(name)):
                files, path = system(self.at(name))
                above, _, last = path.rpartition("/")
                if folder:
                    self.remove(name)
                    for each in sorted(sizes(str(new))):
                        _put(files, new / each, f"{path}/{each}")
                else:
                    hidden = f"{above}/{PREFIX}-{last}.{uuid.uuid4().hex[:8]}.part"
                    _put(files, new, hidden)
                    files.mv(hidden, path)

    def remove(self, name: str) -> None:
        with self._writing(self.at(name)):
            files, path = system(self.at(name))
            files.invalidate_cache()
            if files.exists(path):
                files.rm(path, recursive=True)

    def _writing(self, address: str) -> AbstractContextManager[None]:
        """Turn any error of a library for this kind of address into one sentence."""
        return restated(address, lambda error: PartzooError(f"Cannot write {address!r}: {cause_of(error)}."))


def _put(files, file: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    files.makedirs(path.rpartition("/")[0], exist_ok=True)
    files.put_file(str(file), path)


def destination_of(out: str | os.PathLike) -> Destination:
    """Return the place that a path or an address names.

    Raises:
        UsageError: it is an address of the web, where nothing can be written, or of a kind that is not installed.
    """
    address = full(out)
    if scheme_of(address) in SCHEMES:
        raise UsageError(f"{address!r} is an address of the web, where nothing can be written: choose another out=.")
    if scheme_of(address):
        system(address)  # which says what is missing before the work begins
        return Remote(address.rstrip("/"))
    return Folder(address)
