"""What the loaders share: examples read when asked for, list files, and the papers' ways of framing an image."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from partzoo.errors import UsageError, require

Row = TypeVar("Row")


@dataclass(frozen=True, eq=False)
class Example:
    """One image of a part protocol, in the protocol's frame: already cropped and resized as its rules say.

    Attributes:
        image: ``(H, W, 3)`` uint8.
        points: ``(L, 2)`` float64 landmarks, x and y in the frame's pixels; None where truth is a mask.
        visible: ``(L,)`` bool, whether a landmark counts; None: all of them.
        mask: ``(h, w)`` int64, true label of each pixel of the protocol's grid; None where truth is landmarks.
        box: x, y, width, height in the frame's pixels of the thing; None where the data has none.
        category: number of the image's class; None where the data has none.
        group: images of one group are alike, such as frames of one person.
    """

    image: np.ndarray
    points: np.ndarray | None = None
    visible: np.ndarray | None = None
    mask: np.ndarray | None = None
    box: tuple[float, float, float, float] | None = None
    category: int | None = None
    group: int = 0


class Examples(Sequence):
    """Examples made when they are asked for, so that any number of them takes the memory of one.

    Args:
        records: what is known of each before its image is opened.
        read: a record -> its example.
    """

    def __init__(self, records: Sequence, read: Callable[[Any], Example]) -> None:
        self.records, self.read = records, read

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Examples(self.records[index], self.read)
        return self.read(self.records[index])


def inside(data: Path, folder: str) -> Path:
    """The archive's own folder, whether ``data`` is that or the one it was unpacked into."""
    return data / folder if (data / folder).is_dir() else data


def need(protocol: str, data: str | Path, names: Sequence[str], get: str) -> Path:
    """The data's folder, if everything that ``names`` lists lies in it.

    Raises:
        UsageError: something is missing; the sentence says what, and where it comes from.
    """
    data = Path(data)
    for name in names:
        if not (data / name).exists():
            raise UsageError(f"{protocol} needs {data / name}, which is not there. {get}")
    return data


def check_split(protocol: str, split: str, splits: Sequence[str]) -> None:
    """Raises:
    UsageError: the protocol has no such split.
    """
    if split not in splits:
        raise UsageError(f"Unknown split {split!r} of {protocol}; the splits are {', '.join(splits)}.")


def read_text(file: Path) -> str:
    """Text of a list file, without a byte order mark and with one kind of line end.

    It is UTF-8, or UTF-16 if its mark says so; bytes that are no UTF-8 become replacement characters.
    """
    data = file.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return data.decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")


def read_rows(file: Path, form: str, parse: Callable[[list[str]], Row], separator: str | None = None) -> list[Row]:
    """Every line of a list file that is not blank.

    Args:
        file: text, one row a line.
        form: what a line must look like, for the message.
        parse: fields of a line -> its row; ValueError and IndexError mean that the line is damaged.
        separator: between fields; any white space by default.

    Raises:
        UsageError: a line is damaged (the sentence gives file and number), or there is none.
    """
    rows = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if line.strip():
            try:
                rows.append(parse(line.strip().split(separator)))
            except (ValueError, IndexError) as error:
                raise UsageError(
                    f"{file}, line {number}: {line.strip()[:80]!r} is not '{form}'. Get the file anew."
                ) from error
    if not rows:
        raise UsageError(f"{file} is empty: each line must be '{form}'.")
    return rows


def read_json(file: Path) -> dict:
    """The object that a JSON file holds.

    Raises:
        UsageError: it is damaged; the sentence gives file and line.
    """
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise UsageError(f"{file} is not JSON ({error}). Get the file anew.") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file} holds a {type(found).__name__}, not an object. Get the file anew.")
    return found


def read_mat(file: Path, variable: str, **options: bool) -> Any:
    """One variable of a MATLAB file; ``options`` are those of ``scipy.io.loadmat``.

    Raises:
        UsageError: it is damaged or lacks the variable.
        MissingExtraError: scipy is not installed.
    """
    loadmat = require("scipy.io", "eval").loadmat
    try:
        return loadmat(file, **options)[variable]
    except Exception as error:  # damaged bytes make the reader raise errors of any type
        raise UsageError(f"{file} holds no readable {variable!r} ({error}). Get the file anew.") from error


def squash(pixels: np.ndarray, side: int) -> np.ndarray:
    """The image as a square, aspect not kept, antialiased bilinear: torchvision's Resize of a PIL image.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        side: height and width of the result, ``(side, side, 3)`` uint8.
    """
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def squash_plain(pixels: np.ndarray, side: int) -> np.ndarray:
    """The image as a square, aspect not kept, bilinear without antialiasing: OpenCV's resize, to a grey level."""
    rows, columns = ((np.arange(side) + 0.5) * length / side - 0.5 for length in pixels.shape[:2])
    return sample(pixels, rows, columns)


def sample(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear values at all pairs of rows and columns, those outside clamped to the border.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        rows, columns: ``(h,)`` and ``(w,)`` float, the centre of the first pixel being 0.

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
    """Labels ``(H, W)`` on a square grid ``(side, side)`` int64: nearest, cell i reading pixel floor(i H / side)."""
    rows, columns = (np.arange(side) * length // side for length in mask.shape)
    return mask[rows[:, None], columns].astype(np.int64)


def stretch(pixels: np.ndarray, side: int) -> np.ndarray:
    """Factors ``(2,)``, of x and y, from an image's pixels to those of the square that it is squashed to."""
    height, width = pixels.shape[:2]
    return np.array([side / width, side / height])
