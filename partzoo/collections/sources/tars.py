"""Images in WebDataset's tars."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import Any

from partzoo.archives import check_end
from partzoo.collections.sources import Record, Source, forms
from partzoo.collections.storage import WILDCARDS, Stored, last_name, list_files, opened
from partzoo.errors import UsageError, cause_of
from partzoo.images.opening import SUFFIXES

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Tars(Source):
    """The images in one or more tars, in their order; a key is the tar's name and the image's name in it.

    The headers of a tar are read when its images are needed, and no list of all images is kept; the worker that needs
    an image reads its range of bytes. Of a sample with several files, as in WebDataset, the image is the file whose
    whole extension is that of an image: ``7.jpg`` but not the label map ``7.seg.png``.
    """

    form = "tars (such as 'train-*.tar' or 'train-{000..009}.tar')"

    def __init__(self, address: str) -> None:
        if address.lower().endswith(COMPRESSED):
            raise UsageError(f"{address} is compressed, so that no part of it can be read alone: decompress it first.")
        super().__init__(address)
        self._files = [file for each in _expanded(address) for file in _matches(each)]
        self._latest: tuple[str, list[Record]] = "", []
        self._counts = [len(self._images(file)) for file in self._files]
        if not sum(self._counts):
            raise UsageError(f"{address!r} holds no images. A collection is {forms()}.")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_latest": ("", [])}

    def __len__(self) -> int:
        return sum(self._counts)

    def keys(self) -> Iterator[str]:
        return (record.key for file in self._files for record in self._images(file))

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        stop, before = len(self) if stop is None else stop, 0
        for file, count in zip(self._files, self._counts, strict=True):
            first, last = max(start - before, 0), min(stop - before, count)
            if first < last:
                yield from self._images(file)[first:last]
            before += count

    def _images(self, file: str) -> list[Record]:
        """List the images of a tar; the latest list is kept."""
        if self._latest[0] != file:
            self._latest = file, _images(file)
        return self._latest[1]

    @classmethod
    def accepts(cls, address: str) -> bool:
        return address.lower().endswith((".tar", *COMPRESSED))


def _expanded(address: str) -> Iterator[str]:
    """Expand the ranges of numbers in braces, with which WebDataset names its shards."""
    found = BRACES.search(address)
    if not found:
        yield address
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expanded(f"{address[: found.start()]}{number:0{len(first)}}{address[found.end() :]}")


def _matches(address: str) -> list[str]:
    if not any(letter in address for letter in WILDCARDS):
        return [address]
    if found := list(list_files(address).values()):
        return found
    raise UsageError(f"No tars match {address!r}: check the path.")


def _images(file: str) -> list[Record]:
    """List the images of a tar with their ranges of bytes."""
    try:
        with opened(file) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            members = [each for each in tar if each.isreg() and not each.issparse()]
            check_end(tar, file)
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"{file} cannot be read as a tar ({cause_of(error)}).") from error
    images = [each for each in members if each.name.lower().endswith(SUFFIXES)]
    whole = {_sample(each.name)[0] for each in images if _sample(each.name)[1] in SUFFIXES}
    chosen = [each for each in images if _sample(each.name)[1] in SUFFIXES or _sample(each.name)[0] not in whole]
    tar_name = last_name(file)
    return [
        Record(f"{tar_name}/{each.name}", Stored(file, f"{file}: {each.name}", each.offset_data, each.size))
        for each in chosen
    ]


def _sample(name: str) -> tuple[str, str]:
    """Split a member's name into its sample and its extension, which begins at the first dot of the last component."""
    folder, slash, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{extension}".lower()
