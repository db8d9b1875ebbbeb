"""A kind of file that is mutated, and the small files that several kinds begin with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: name for the report.
        form: the structure that mutations know, a name in :data:`tests.faults.mutations.FORMS`.
        build: function that writes a valid file, and those that belong to it, into a folder, and returns its path.
        read: function that reads the file at a path, and raises nothing but partzoo's errors.
    """

    name: str
    form: str
    build: Callable[[Path], Path]
    read: Callable[[Path], Any]


def drawn(height: int = 24, width: int = 40) -> np.ndarray:
    """Return the RGB pixels of an image with gradients and noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 60, (height, width))
    return np.stack([6 * x, 10 * y, noise + 3 * x], 2).astype(np.uint8)


def written(name: str, content: bytes | str) -> Callable[[Path], Path]:
    """Return a function that writes a file, and its folders, into a folder."""

    def build(folder: Path) -> Path:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return build


def save_image(file: Path, size: tuple[int, int] = (24, 40)) -> Path:
    """Write an image as PNG, whatever its suffix, and return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn(*size)).save(file, "PNG")
    return file
