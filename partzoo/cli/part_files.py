"""Where ``partzoo discover`` writes the parts of images, and how."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from partzoo.cli.journal import file_for, unfinished
from partzoo.errors import UsageError, require

if TYPE_CHECKING:
    from partzoo.images.opening import OpenedImages
    from partzoo.parts.parts import Parts

FORMS = (".png", ".index.png", ".npz", ".json")


@dataclass(frozen=True)
class Output:
    """Where the parts of images are written.

    Attributes:
        path: what the user named, or None where nothing is written.
        files: a file for each image.
        form: format of the files; None is that of their suffix.
        folder: what the files are written into, or None where the output is one file.
        journal: folder for the journal of a run over many images, or None.
        together: whether the files, which lie beside the journal then, become the one COCO file ``path`` at the end.
    """

    path: Path | None = None
    files: tuple[Path, ...] = ()
    form: str | None = None
    folder: Path | None = None
    journal: Path | None = None
    together: bool = False

    def named(self, index: int) -> str | None:
        """Path of the file that the parts of the image with this index are in at the end."""
        if self.together or not self.files:
            return None if self.path is None else str(self.path)
        return str(self.files[index])

    def write(self, parts: Parts, index: int, scale: int | None) -> None:
        """Write the parts of the image with this index."""
        if self.together:
            _write(self.files[index], [json.dumps(_coco(parts, self.path))])
        elif self.files:
            parts.save(self.files[index], scale=scale, form=self.form)

    def join(self, indices: Sequence[int]) -> None:
        """Make the one COCO file from the files of these images, of which one is in memory at a time."""
        from partzoo.parts.coco import joined

        if self.together and self.path and indices:
            _write(self.path, joined(lambda: (json.loads(self.files[index].read_bytes()) for index in indices)))


def output_of(out: str | None, form: str, images: OpenedImages, single: bool) -> Output:
    """Where the parts of images are written, by the options ``-o`` and ``--format``.

    Raises:
        UsageError: ``out`` does not fit the number of images, or its format is unknown.
        MissingExtraError: the library that the format needs is not installed.
    """
    if out is None:
        return Output()
    path = Path(out).expanduser()
    if len(images) == 1 and not path.is_dir() and (single or path.suffix):
        if not path.name.lower().endswith(FORMS):
            raise UsageError(f"Unknown ending of {out!r}. Use one of {', '.join(FORMS)}.")
        output = Output(path, (path,))
    elif path.suffix.lower() == ".json":
        journal = unfinished(path)
        files = tuple(file_for(journal, images.name(index), ".json") for index in range(len(images)))
        output = Output(path, files, None, None, journal, together=True)
    elif path.suffix.lower() in (".png", ".npz") and not path.is_dir():
        raise UsageError(f"-o {out} is one file, but there are {len(images)} images. Name a folder, or a .json file.")
    else:
        files = tuple(path / f"{name}{form}" for name in file_names([images.name(i) for i in range(len(images))]))
        output = Output(path, files, form, path, None if single else unfinished(path))
    if output.files[0].suffix.lower() == ".json":
        require("pycocotools.mask", "coco")
    return output


def file_names(sources: Sequence[str]) -> list[str]:
    """A name for the file of each source: the source's own, without the suffix.

    Where several sources have one name, theirs keep the suffix (``a.jpg`` and ``a.png``), or begin with as many of the
    folders above as distinguish them (``x-a`` and ``y-a``). Only a source that is given twice is numbered. Letters that
    differ in case alone do not distinguish, since there are file systems to which they are the same.
    """
    paths = [Path(source) for source in sources]
    names = [path.stem or f"image-{number}" for number, path in enumerate(paths, 1)]
    deepest = max(len(path.parts) for path in paths)
    for folders in (0, *range(deepest)):  # names with suffixes may be those of others without, hence twice
        counts = Counter(map(str.casefold, names))
        if len(counts) == len(names):
            break
        names = [
            _longer(path, folders) if counts[name.casefold()] > 1 else name
            for name, path in zip(names, paths, strict=True)
        ]
    return _numbered(names)


def _longer(path: Path, folders: int) -> str:
    """The name with its suffix, or behind a number of folders."""
    above = path.parts[bool(path.anchor) : -1]
    return "-".join([*above[-folders:], path.stem]) if folders else path.name


def _numbered(names: Sequence[str]) -> list[str]:
    """The names, with a number after each that was there before."""
    taken: set[str] = set()
    copies: Counter[str] = Counter()
    found = []
    for name in names:
        free = name
        while free.casefold() in taken:
            copies[name] += 1
            free = f"{name}-{copies[name] + 1}"
        taken.add(free.casefold())
        found.append(free)
    return found


def _coco(parts: Parts, path: Path | None) -> dict:
    from partzoo.parts.coco import to_coco

    return to_coco([parts], folder=path.parent if path else None)


def _write(path: Path, pieces: Iterable[str]) -> None:
    from partzoo.files import write_aside

    with write_aside(path) as file:
        for piece in pieces:
            file.write(piece.encode())
