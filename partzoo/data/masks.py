"""Images with a mask or a label map each, from a folder or a tar with ``images/`` and ``masks/``."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from partzoo.errors import ImageError, UsageError
from partzoo.images.finding import files_below
from partzoo.images.opening import SUFFIXES, open_image

SPLITS = {"report": (0,), "dev": (1,), "train": (2, 3, 4)}  # places in each five images, in the order of their names
HASH_SIDE, HASH_BITS = 32, 8
ALIKE = 8  # bits of 63 in which the hashes of two copies of one photograph may differ


@dataclass(frozen=True, eq=False)
class MaskedImage:
    """An image and what each of its pixels shows.

    Attributes:
        name: path below ``images/``, without its ending.
        pixels: ``(H, W, 3)`` uint8.
        mask: ``(H, W)`` uint8, 0 background; 1 foreground, or the number of a label.
    """

    name: str
    pixels: np.ndarray
    mask: np.ndarray


class MaskedSet(Sequence):
    """A set's images in the order of their names, read when they are asked for.

    Args:
        path: a folder with ``images/`` and ``masks/``, or a tar of one; a mask is the PNG of the same name.
        split: ``"train"``, ``"dev"`` or ``"report"``: of every five images, in the order of their names, the first is
            for reports, the second for choices and the rest for training. ``"all"`` takes all.

    Raises:
        UsageError: there is no such set or split, or an image has no mask.
    """

    def __init__(self, path: str | Path, split: str = "all") -> None:
        if split not in ("all", *SPLITS):
            raise UsageError(f"Unknown split {split!r}; the splits are all, {', '.join(SPLITS)}.")
        self.path = Path(path)
        self._files = _files_of(self.path)
        stems = {name.removeprefix("images/").rpartition(".")[0]: name for name in self._files if _is_image(name)}
        if not stems:
            raise UsageError(f"{self.path} has no images below images/.")
        if missing := [stem for stem in stems if f"masks/{stem}.png" not in self._files]:
            raise UsageError(f"{self.path} has no masks/{missing[0]}.png, the mask of {stems[missing[0]]}.")
        places = range(5) if split == "all" else SPLITS[split]
        self.names = [stem for place, stem in enumerate(sorted(stems)) if place % 5 in places]
        self._images = stems

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> MaskedImage:
        name = self.names[index]
        pixels = open_image(self._read(self._images[name]), name=f"{self.path}: {name}").pixels
        with Image.open(io.BytesIO(self._read(f"masks/{name}.png"))) as opened:
            mask = np.asarray(opened)
        if mask.shape != pixels.shape[:2]:
            raise ImageError(f"{self.path}: the mask of {name} is {mask.shape}, its image {pixels.shape[:2]}.")
        return MaskedImage(name, pixels, mask.astype(np.uint8))

    def _read(self, name: str) -> bytes:
        place = self._files[name]
        if isinstance(place, Path):
            return place.read_bytes()
        with self.path.open("rb") as file:
            file.seek(place[0])
            return file.read(place[1])


def find_set(folder: str | Path, name: str) -> Path:
    """Where a set lies below a folder: ``NAME.tar`` or ``NAME/``, there or in ``masks/``.

    Raises:
        UsageError: it is in none of these places.
    """
    for base in (Path(folder), Path(folder, "masks")):
        for path in (base / f"{name}.tar", base / name):
            if path.exists():
                return path
    raise UsageError(f"{folder} has neither {name}.tar nor {name}/, there or in masks/.")


def perceptual_hash(pixels: np.ndarray) -> np.ndarray:
    """63 bits ``(63,)`` bool that copies of one photograph share, whatever their size and compression.

    They are the signs, against their median, of the lowest frequencies of the grey image at 32 x 32 pixels.

    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.
    """
    grey = Image.fromarray(pixels).convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS)
    rows = np.arange(HASH_SIDE)
    waves = np.cos(np.pi * (2 * rows + 1) * np.arange(HASH_BITS)[:, None] / (2 * HASH_SIDE))
    low = (waves @ np.asarray(grey, np.float64) @ waves.T).ravel()[1:]
    return low > np.median(low)


def hashes_of(images: Iterable[np.ndarray]) -> np.ndarray:
    """Hashes ``(N, 63)`` of images ``(H, W, 3)``."""
    return np.array([perceptual_hash(pixels) for pixels in images]).reshape(-1, HASH_BITS**2 - 1)


def is_known(pixels: np.ndarray, known: np.ndarray) -> bool:
    """Whether an image, or its mirror image, is nearly the same as one whose hash is among ``(N, 63)``."""
    own = (perceptual_hash(pixels), perceptual_hash(np.ascontiguousarray(pixels[:, ::-1])))
    return any(((known != each).sum(1) <= ALIKE).any() for each in own)


def _is_image(name: str) -> bool:
    return name.startswith("images/") and name.lower().endswith(SUFFIXES)


def _files_of(path: Path) -> dict[str, Path | tuple[int, int]]:
    """Files by their path in a set: where each lies, or its offset and length in the tar."""
    if path.is_dir():
        found = (file for name in ("images", "masks") for file in files_below(path / name, aliases=True))
        return {file.relative_to(path).as_posix(): file for file in found}
    try:
        with tarfile.open(path, "r:") as tar:
            members = [member for member in tar if member.isfile()]
    except (tarfile.TarError, OSError) as error:
        raise UsageError(f"{path} is neither a folder nor an uncompressed tar: {error}.") from error
    return {PurePosixPath(each.name).as_posix(): (each.offset_data, each.size) for each in members}
