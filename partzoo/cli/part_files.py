"""Choose and write the output files of ``partzoo discover``."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from partzoo.cli.journal import file_for, unfinished
from partzoo.errors import UsageError, require
from partzoo.files import expand_user, parse_json, reading
from partzoo.parts.formats import FORMATS, Options, format_of

if TYPE_CHECKING:
    from partzoo.images.opening import OpenedImages, VideoFrames
    from partzoo.parts.parts import Parts

COCO, YOLO = ".json", ".txt"  # endings of the formats that join images in a file or a data set
NAME_BYTES = 235  # largest number of bytes of an output's name, without a number that distinguishes it and its ending
VIDEO_ENDINGS = (".mp4", ".mkv")  # overlays; part numbers


@dataclass(frozen=True)
class Output:
    """The files that the parts of images are written to.

    Attributes:
        path: output that the user named, or None if nothing is written.
        files: one file per image.
        form: format of the files; None derives it from their suffix.
        folder: folder that the files are written to, or None if the output is one file.
        journal: folder for the journal of a run over many images, or None.
        together: whether the files, which are then kept beside the journal, are joined into one file, ``path``, at the
            end: a COCO file, or a video.
        options: options of the format.
        frames: the frames of which ``path`` becomes a video, or None.
    """

    path: Path | None = None
    files: tuple[Path, ...] = ()
    form: str | None = None
    folder: Path | None = None
    journal: Path | None = None
    together: bool = False
    options: Options = field(default_factory=Options)
    frames: VideoFrames | None = None

    def named(self, index: int) -> str | None:
        """Return the path of the file that will finally hold the parts of the image with this index."""
        if self.together or not self.files:
            return None if self.path is None else str(self.path)
        return str(self.files[index])

    def write(self, parts: Parts, index: int) -> None:
        """Write the parts of the image with this index."""
        if self.together and self.frames is None:
            _write(self.files[index], [json.dumps(self._coco(parts))])
        elif self.folder and self.form == YOLO:
            from partzoo.parts.yolo import add_to_dataset

            add_to_dataset(parts, self.folder, self.files[index].name.removesuffix(YOLO))
        elif self.files:
            parts.save(self.files[index], form=self.form, **asdict(self.options))

    def join(self, indices: Sequence[int], scale: int | None = None, smooth: int = 1) -> None:
        """Join the files of these images into the one COCO file or video, holding one of them in memory at a time."""
        from partzoo.parts.coco import joined

        if self.frames and self.path and indices:
            self._join_video(self.path, self.frames, indices, scale or 1, smooth)
        elif self.together and self.path and indices:
            _write(self.path, joined(lambda: (_read(self.files[index]) for index in indices)))

    def _join_video(self, path: Path, frames: VideoFrames, indices: Sequence[int], scale: int, smooth: int) -> None:
        from partzoo.parts.parts import Parts
        from partzoo.parts.video import smoothed, write_video

        k = Parts.load(self.files[indices[0]]).k
        labels = smoothed((Parts.load(self.files[index]).labels for index in indices), smooth)
        labelled = (
            Parts(each, k=k, image=frames[index].pixels if path.suffix.lower() == ".mp4" else None)
            for each, index in zip(labels, indices, strict=True)
        )
        write_video(
            path,
            labelled,
            [frames.video.times[index] for index in indices],
            time_base=frames.video.time_base,
            rate=frames.video.rate,
            aspect=frames.video.aspect,
            scale=scale,
        )

    def _coco(self, parts: Parts) -> dict:
        from partzoo.parts.coco import to_coco

        return to_coco([parts], self.options.segmentation, self.path.parent if self.path else None)


def _read(file: Path) -> dict:
    """Read the COCO file of one image, which an earlier process may have written."""
    from partzoo.parts.coco import KEYS

    with reading(file, fix="start over with resume=False"):
        found = parse_json(file.read_bytes())
        if not isinstance(found, dict) or not found.keys() >= set(KEYS) or len(found["images"]) != 1:
            raise ValueError("it is not a COCO dataset of one image")
        return found


def output_of(out: str | None, form: str, images: OpenedImages, single: bool, options: Options) -> Output:
    """Decide where the parts of images are written, from the options ``-o``, ``--format`` and those of formats.

    Raises:
        UsageError: ``out`` does not fit the number of images, its format is unknown, or ``options`` are not its own.
        MissingExtraError: the library that the format needs is not installed.
    """
    if out is None:
        return Output()
    path = expand_user(out)
    found = FORMATS[form]
    if len(images) == 1 and not path.is_dir() and (single or path.suffix):
        chosen = format_of(path.name)
        if chosen is None:
            raise UsageError(f"Unknown ending of {out!r}. Use one of {', '.join(FORMATS)}.")
        found, output = chosen, Output(path, (path,), options=options)
    elif format_of(path.name) is FORMATS[COCO]:
        journal = unfinished(path)
        files = tuple(file_for(journal, images.name(index), ".json") for index in range(len(images)))
        found, output = FORMATS[COCO], Output(path, files, None, None, journal, together=True, options=options)
    elif path.suffix.lower() in VIDEO_ENDINGS and not path.is_dir():
        from partzoo.images.opening import VideoFrames

        if not isinstance(images, VideoFrames):
            raise UsageError(f"-o {out} is a video, but the images are not the frames of one. Name a folder.")
        journal = unfinished(path)
        files = tuple(file_for(journal, images.name(index), ".index.png") for index in range(len(images)))
        found = FORMATS[".index.png"]
        output = Output(path, files, None, None, journal, together=True, options=options, frames=images)
    elif format_of(path.name) and not path.is_dir():
        raise UsageError(f"-o {out} is one file, but there are {len(images)} images. Name a folder, or a .json file.")
    else:
        names = file_names([images.name(i) for i in range(len(images))])
        files = tuple(path / found.name.format(name) for name in names)
        output = Output(path, files, found.ending, path, None if single else unfinished(path), options=options)
    if options.segmentation == "polygons" and found.ending != COCO:
        raise UsageError(f"--segmentation polygons is for COCO ({COCO}), not for {found.what}.")
    if found.ending == COCO and options.segmentation == "rle":
        require("pycocotools.mask", "coco")
    return output


def file_names(sources: Sequence[str]) -> list[str]:
    """Return a name for the file of each source: the name of the source without the suffix.

    If several sources have the same name, the names keep the suffix (``a.jpg`` and ``a.png``), or begin with as many
    parent folders as distinguish them (``x-a`` and ``y-a``). Only a source that is given twice is numbered. Names that
    differ only in the case of letters count as equal, because some file systems do not distinguish them.
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
    return _numbered([_shortened(name) for name in names])


def _shortened(name: str) -> str:
    """Return a name of at most ``NAME_BYTES`` bytes, since file systems limit names to 255 with the ending."""
    return os.fsencode(name)[:NAME_BYTES].decode(errors="ignore")


def _longer(path: Path, folders: int) -> str:
    """Return the name of a path with its suffix, or with a number of parent folders before it."""
    above = path.parts[bool(path.anchor) : -1]
    return "-".join([*above[-folders:], path.stem]) if folders else path.name


def _numbered(names: Sequence[str]) -> list[str]:
    """Return the names, with a number after each that occurred before."""
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


def _write(path: Path, pieces: Iterable[str]) -> None:
    from partzoo.files import write_aside

    with write_aside(path) as file:
        for piece in pieces:
            file.write(piece.encode())
