"""Choose and write the output files of ``partzoo discover``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from partzoo.cli.command import make_folder
from partzoo.cli.journal import file_for, unfinished
from partzoo.errors import UsageError, require

if TYPE_CHECKING:
    from partzoo.images.opening import OpenedImages
    from partzoo.parts.parts import Parts

FORMS = (".png", ".index.png", ".npz", ".json")


@dataclass(frozen=True)
class Output:
    """The files that the parts of images are written to.

    Attributes:
        path: output that the user named, or None if nothing is written.
        files: one file per image.
        form: format of the files; None derives it from their suffix.
        journal: folder for the journal of a run over many images, or None.
        together: whether the files, which are then kept beside the journal, are joined into one COCO file, ``path``, at
            the end.
    """

    path: Path | None = None
    files: tuple[Path, ...] = ()
    form: str | None = None
    journal: Path | None = None
    together: bool = False

    @property
    def folder(self) -> Path | None:
        """Folder that the files of many images are written to, or None if the output is one file."""
        return self.path if self.journal and not self.together else None

    def named(self, index: int) -> str | None:
        """Return the path of the file that will finally hold the parts of the image with this index."""
        if self.together or not self.files:
            return None if self.path is None else str(self.path)
        return str(self.files[index])

    def write(self, parts: Parts, index: int, scale: int | None) -> None:
        """Write the parts of the image with this index."""
        if self.together:
            _write_coco([_coco(parts, self.path)], self.files[index])
        elif self.files:
            parts.save(self.files[index], scale=scale, form=self.form)

    def join(self, indices: Sequence[int]) -> None:
        """Join the files of these images into the one COCO file."""
        if self.together and self.path and indices:
            _write_coco([json.loads(self.files[index].read_text()) for index in indices], self.path)


def output_of(out: str | None, form: str, images: OpenedImages, single: bool) -> Output:
    """Decide where the parts of images are written, from the options ``-o`` and ``--format``.

    Raises:
        UsageError: ``out`` does not fit the number of images, or its format is unknown.
        MissingExtraError: the library that the format needs is not installed.
        PartzooError: a folder cannot be created.
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
        output = Output(path, files, None, journal, together=True)
    elif path.suffix.lower() in (".png", ".npz") and not path.is_dir():
        raise UsageError(f"-o {out} is one file, but there are {len(images)} images. Name a folder, or a .json file.")
    else:
        make_folder(path)
        files = tuple(path / f"{name}{form}" for name in _file_names(images))
        output = Output(path, files, form, None if single else unfinished(path))
    if output.files[0].suffix.lower() == ".json":
        require("pycocotools.mask", "coco")
    return output


def _file_names(images: OpenedImages) -> list[str]:
    """Return a name for each image's file; equal names are numbered."""
    taken: dict[str, None] = {}
    for index in range(len(images)):
        stem = Path(images.name(index)).stem or f"image-{index + 1}"
        name, copy = stem, 2
        while name in taken:
            name, copy = f"{stem}-{copy}", copy + 1
        taken[name] = None
    return list(taken)


def _coco(parts: Parts, path: Path | None) -> dict:
    from partzoo.parts.coco import to_coco

    return to_coco([parts], folder=path.parent if path else None)


def _write_coco(several: Sequence[dict], path: Path) -> None:
    from partzoo.files import write_aside
    from partzoo.parts.coco import joined

    with write_aside(path) as file:
        file.write(json.dumps(joined(several)).encode())
