"""Helpers shared by the data loaders: reading on demand, list files, and image resizing as in the papers."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from PIL import Image

from partzoo.data.annotations import warn_passed_over
from partzoo.errors import UsageError, require
from partzoo.files import parse_json, reading

Row = TypeVar("Row")


@dataclass(frozen=True, eq=False)
class Example:
    """One image of a part protocol, cropped and resized as the protocol's rules say.

    Attributes:
        image: ``(H, W, 3)`` uint8.
        points: ``(L, 2)`` float64 landmarks, x and y in pixels of ``image``; None if the ground truth is a mask.
        visible: ``(L,)`` bool, whether a landmark counts; None counts all.
        mask: ``(h, w)`` int64, true label at each point of the protocol's grid; None if the ground truth is landmarks.
        box: x, y, width and height of the object in pixels of ``image``; None if the data has none.
        category: number of the image's class; None if the data has none.
        group: number of the image's group; images of one group are similar, for example frames of one person.
    """

    image: np.ndarray
    points: np.ndarray | None = None
    visible: np.ndarray | None = None
    mask: np.ndarray | None = None
    box: tuple[float, float, float, float] | None = None
    category: int | None = None
    group: int = 0


class Examples(Sequence[Example]):
    """A sequence of examples read on demand, so any number of them takes the memory of one.

    Args:
        records: one record for each example, from which it is read.
        read: function from a record to its example.
        name_of: function from a record to the name of its image, for messages.
    """

    def __init__(self, records: Sequence, read: Callable[[Any], Example], name_of: Callable[[Any], str]) -> None:
        self.records, self.read, self.name_of = records, read, name_of

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Examples: ...

    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return Examples(self.records[index], self.read, self.name_of)
        return self.read(self.records[index])

    def name(self, index: int) -> str:
        """Return the name of the image of an example, without reading it."""
        return self.name_of(self.records[index])


def inside(data: Path, folder: str) -> Path:
    """Return the folder unpacked from an archive; ``data`` is that folder or the one that contains it."""
    return data / folder if (data / folder).is_dir() else data


def need(protocol: str, data: str | Path, names: Sequence[str], get: str) -> Path:
    """Check that the folder of a data set contains certain files, and return the folder.

    Args:
        protocol: name of the protocol, for the message.
        data: the folder.
        names: files and folders that must be in it.
        get: instructions for the download, for the message.

    Raises:
        UsageError: a file or folder is missing; the message names it and gives the instructions.
    """
    data = Path(data)
    for name in names:
        if not (data / name).exists():
            raise UsageError(f"{protocol} needs {data / name}, which is not there. {get}")
    return data


def check_split(protocol: str, split: str, splits: Sequence[str]) -> None:
    """Check that a protocol has a split.

    Raises:
        UsageError: the split is unknown.
    """
    if split not in splits:
        raise UsageError(f"Unknown split {split!r} of {protocol}; the splits are {', '.join(splits)}.")


def read_text(file: Path) -> str:
    """Read a list file as text, without a byte order mark and with newlines as line ends.

    The encoding is UTF-8, or UTF-16 if its mark says so; bytes that are not UTF-8 become replacement characters.

    Raises:
        UsageError: the file cannot be read.
    """
    with reading(file, UsageError):
        data = file.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return data.decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")


def read_rows(file: Path, form: str, parse: Callable[[list[str]], Row], separator: str | None = None) -> list[Row]:
    """Read a list file, skipping blank lines.

    Args:
        file: text file with one row on each line.
        form: description of a valid line, for the message.
        parse: function from the fields of a line to its row; a ValueError or IndexError marks the line as damaged.
        separator: separator of fields; any white space by default.

    Raises:
        UsageError: a line is damaged (the message gives file and line number), or the file is empty.
    """
    rows = []
    for number, line in _lines(file):
        try:
            rows.append(parse(line.split(separator)))
        except (ValueError, IndexError) as error:
            raise UsageError(
                f"{file}, line {number}: {line[:80]!r} is not '{form}'. Download the file again."
            ) from error
    if not rows:
        raise UsageError(f"{file} is empty: each line must be '{form}'.")
    return rows


def read_usable_rows(file: Path, form: str, parse: Callable[[list[str]], Row]) -> tuple[list[Row], int]:
    """Read a list file as :func:`read_rows` does, but skip damaged lines, which one warning names.

    Returns:
        The rows, and the number of skipped lines.

    Raises:
        UsageError: no line is usable.
    """
    rows, passed = [], []
    for number, line in _lines(file):
        try:
            rows.append(parse(line.split()))
        except (ValueError, IndexError):
            passed.append((f"line {number}", f"{line[:80]!r} is not '{form}'"))
    if not rows:
        raise UsageError(f"{file} has no usable line: each line must be '{form}'. Download the file again.")
    warn_passed_over(file, passed)
    return rows, len(passed)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of each line of a list file that is not blank."""
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def floats(fields: Sequence[str], count: int) -> np.ndarray:
    """Convert the first ``count`` fields of a line to finite numbers, float64.

    Raises:
        ValueError or IndexError: there are fewer fields, or one is not a finite number.
    """
    numbers = np.array([float(fields[i]) for i in range(count)])
    if not np.isfinite(numbers).all():
        raise ValueError("a number is not finite")
    return numbers


def read_json(file: Path) -> dict:
    """Read a JSON file that holds an object.

    Raises:
        UsageError: the file is damaged or holds something other than an object.
    """
    with reading(file, UsageError, "is not JSON"):
        found = parse_json(file.read_bytes())
    if not isinstance(found, dict):
        raise UsageError(f"{file} holds a {type(found).__name__}, not an object. Download the file again.")
    return found


def read_mat(file: Path, variable: str, *, extra: str = "eval", **options: bool) -> Any:
    """Read a variable of a MATLAB file.

    Args:
        file: path of the file.
        variable: name of the variable.
        extra: the extra of partzoo that installs scipy, for the message.
        options: options of ``scipy.io.loadmat``.

    Raises:
        UsageError: the file is damaged or lacks the variable.
        MissingExtraError: scipy is not installed.
    """
    loadmat = require("scipy.io", extra).loadmat
    with reading(file, UsageError, f"holds no readable {variable!r}"):
        return loadmat(file, **options)[variable]


def read_numbers(file: Path) -> np.ndarray:
    """Read the array of an ``.npy`` file.

    Raises:
        UsageError: the file is damaged, or its values are not numbers.
    """
    with reading(file, UsageError, "is not an array of numbers"):
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf" or not found.ndim:
            raise ValueError(f"it holds {getattr(found, 'dtype', type(found).__name__)} {np.shape(found)}")
        return found


def check_any(file: Path, found: Sequence, what: str) -> None:
    """Refuse a list without entries that can be used.

    Raises:
        UsageError: the list is empty.
    """
    if not found:
        raise UsageError(f"{file} lists no {what} that can be used. Download the file again.")


def check_labels(file: Path, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Check the class numbers ``(N,)`` of images.

    Raises:
        UsageError: a number is not that of a class.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "biu":
        raise UsageError(f"{file} holds labels {labels.shape} {labels.dtype}, not one whole number for each image.")
    odd = labels[(labels < 0) | (labels >= len(classes))]
    if len(odd):
        raise UsageError(f"{file} has the label {odd[0]}, but there are {len(classes)} classes. Download it again.")


def squash(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resize an image to a square, antialiased bilinear, as torchvision's Resize does with PIL images.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        side: side of the square in pixels.

    Returns:
        ``(side, side, 3)`` uint8; the aspect ratio is not kept.
    """
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def squash_plain(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resize an image to a square, bilinear without antialiasing; equals OpenCV's resize up to one grey level."""
    rows, columns = ((np.arange(side) + 0.5) * length / side - 0.5 for length in pixels.shape[:2])
    return sample(pixels, rows, columns)


def sample(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sample an image bilinearly at all pairs of rows and columns; positions outside are clamped to the border.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        rows, columns: ``(h,)`` and ``(w,)`` float, in pixels from the centre of the first pixel.

    Returns:
        ``(h, w, 3)`` uint8.
    """
    values = _between(_between(pixels.astype(np.float32), columns, 1), rows, 0)
    return np.rint(values).astype(np.uint8)


def _between(values: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
    last = values.shape[axis] - 1
    at = np.clip(at, 0, last)
    low = np.floor(at).astype(np.intp)
    weight = (at - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
    return values.take(low, axis) * (1 - weight) + values.take(np.minimum(low + 1, last), axis) * weight


def squash_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Resize labels ``(H, W)`` to ``(side, side)`` int64; cell ``i`` takes the label of pixel ``i * H // side``."""
    rows, columns = (np.arange(side) * length // side for length in mask.shape)
    return mask[rows[:, None], columns].astype(np.int64)


def stretch(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return the factors ``(2,)`` by which x and y change when an image is resized to a square."""
    height, width = pixels.shape[:2]
    return np.array([side / width, side / height])
