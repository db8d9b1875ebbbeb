"""Image sets with masks or label maps, read from a folder or a tar with ``images/`` and ``masks/``."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np
from PIL import Image, UnidentifiedImageError

from partzoo.data.annotations import turn_to_image
from partzoo.data.tars import TarImage, listed
from partzoo.errors import ImageError, UsageError, cause_of, restated
from partzoo.files import expand_user, reading
from partzoo.images.finding import files_below
from partzoo.images.opening import SUFFIXES, open_image
from partzoo.skipping import PassOver, warn_of

SPLITS = {"report": (0,), "dev": (1,), "train": (2, 3, 4)}  # positions within every five images, ordered by name
LARGEST = 255  # largest label number
HASH_SIDE, HASH_BITS = 32, 8
ALIKE = 8  # largest number of differing hash bits, of 63, for two copies of one photograph


@dataclass(frozen=True, eq=False)
class MaskedImage:
    """An image and its mask.

    Attributes:
        name: path below ``images/``, without the suffix.
        pixels: ``(H, W, 3)`` uint8.
        mask: ``(H, W)`` uint8: 0 background, 1 foreground; or label numbers.
    """

    name: str
    pixels: np.ndarray
    mask: np.ndarray


class MaskedSet(Sequence[MaskedImage]):
    """A sequence of images with masks, in the order of their names, each read only when indexed.

    Args:
        path: a folder with ``images/`` and ``masks/``, or an uncompressed tar of one; a mask is a PNG with the name of
            its image.
        split: ``"train"``, ``"dev"`` or ``"report"``: of every five images, in the order of names, the first is for
            reports, the second for choosing methods, and the rest for training. ``"all"`` takes all images.

    Raises:
        UsageError: the set or the split does not exist, or no image has a mask.
    """

    def __init__(self, path: str | Path, split: str = "all") -> None:
        if split not in ("all", *SPLITS):
            raise UsageError(f"Unknown split {split!r}; the splits are all, {', '.join(SPLITS)}.")
        self.path = expand_user(path)
        self._files = _files_of(self.path)
        stems = {name.removeprefix("images/").rpartition(".")[0]: name for name in self._files if _is_image(name)}
        if not stems:
            raise UsageError(f"{self.path} has no images below images/.")
        if not any(f"masks/{stem}.png" in self._files for stem in stems):
            raise UsageError(f"{self.path} has no masks/{min(stems)}.png, and none for any other of its images.")
        places = range(5) if split == "all" else SPLITS[split]
        self.names = [stem for place, stem in enumerate(sorted(stems)) if place % 5 in places]
        self._images = stems

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> MaskedImage: ...

    @overload
    def __getitem__(self, index: slice) -> list[MaskedImage]: ...

    def __getitem__(self, index: int | slice) -> MaskedImage | list[MaskedImage]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        name = self.names[index]
        image = self._read(self._images[name])
        pixels = open_image(image, name=self.name(index)).pixels
        return MaskedImage(name, pixels, self._mask(name, image, pixels.shape[:2]))

    def name(self, index: int) -> str:
        """Return the name of an image for messages, with the name of its set and of its file in the set."""
        return f"{self.path}: {self._images[self.names[index]]}"

    def source(self, index: int) -> Path | TarImage:
        """Return the file of an image, or its content from the tar."""
        file = self._images[self.names[index]]
        place = self._files[file]
        if isinstance(place, Path):
            return place
        image = TarImage(self._read(file))
        image.name = self.name(index)
        return image

    def usable(self, pass_over: PassOver = warn_of) -> Iterator[MaskedImage]:
        """Yield the images one by one, without those that are damaged or whose mask is missing or damaged.

        Args:
            pass_over: function that is called for each of these.
        """
        for index in range(len(self)):
            try:
                example = self[index]
            except (ImageError, UsageError) as error:
                pass_over(self.name(index), error)
            else:
                yield example

    def _mask(self, name: str, image: bytes, size: tuple[int, int]) -> np.ndarray:
        """Read the mask of an image of upright ``size``, after a check of the mask's size."""
        file = f"{self.path}: masks/{name}.png"
        if f"masks/{name}.png" not in self._files:
            raise ImageError(f"{self.path} has no masks/{name}.png, the mask of {self._images[name]}.")

        def damaged(error: Exception) -> ImageError:
            reason = "it is not an image" if isinstance(error, UnidentifiedImageError) else cause_of(error)
            return ImageError(f"{file} is damaged ({reason}): recreate it.")

        with restated(file, damaged), Image.open(io.BytesIO(self._read(f"masks/{name}.png"))) as opened:
            turn = turn_to_image(
                image, size, (opened.height, opened.width), f"{self.path}: {self._images[name]}", f"{file} is"
            )
            mask = np.asarray(opened)
        if mask.ndim != 2 or mask.min() < 0 or mask.max() > LARGEST:
            raise ImageError(f"{file} is not one label from 0 to {LARGEST} for each pixel: recreate it.")
        return turn(mask.astype(np.uint8))

    def _read(self, name: str) -> bytes:
        place = self._files[name]
        if isinstance(place, Path):
            with reading(place, ImageError):
                return place.read_bytes()
        with reading(self.path, ImageError), self.path.open("rb") as file:
            file.seek(place[0])
            return file.read(place[1])


def find_set(folder: str | Path, name: str) -> Path:
    """Find a set by its name: ``NAME.tar`` or ``NAME/``, in the folder or in its subfolder ``masks/``.

    Raises:
        UsageError: the set is not there.
    """
    for base in (expand_user(folder), expand_user(Path(folder, "masks"))):
        for path in (base / f"{name}.tar", base / name):
            if path.exists():
                return path
    raise UsageError(f"{folder} has neither {name}.tar nor {name}/, there or in masks/.")


def perceptual_hash(pixels: np.ndarray) -> np.ndarray:
    """Compute a hash ``(63,)`` bool that is nearly equal for copies of one photograph of any size and compression.

    Its bits compare the lowest frequencies of the grey image, at 32 x 32 pixels, with their median.

    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.
    """
    grey = Image.fromarray(pixels).convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS)
    rows = np.arange(HASH_SIDE)
    waves = np.cos(np.pi * (2 * rows + 1) * np.arange(HASH_BITS)[:, None] / (2 * HASH_SIDE))
    low = (waves @ np.asarray(grey, np.float64) @ waves.T).ravel()[1:]
    return low > np.median(low)


def hashes_of(images: Iterable[np.ndarray]) -> np.ndarray:
    """Compute the perceptual hashes ``(N, 63)`` bool of images ``(H, W, 3)`` uint8."""
    return np.array([perceptual_hash(pixels) for pixels in images]).reshape(-1, HASH_BITS**2 - 1)


def is_known(pixels: np.ndarray, known: np.ndarray) -> bool:
    """Return whether an image or its mirror image nearly equals one whose hash is in ``known``, ``(N, 63)`` bool."""
    own = (perceptual_hash(pixels), perceptual_hash(np.ascontiguousarray(pixels[:, ::-1])))
    return any(((known != each).sum(1) <= ALIKE).any() for each in own)


def _is_image(name: str) -> bool:
    return name.startswith("images/") and name.lower().endswith(SUFFIXES)


def _files_of(path: Path) -> dict[str, Path | tuple[int, int]]:
    """List a set's files: for each relative path, the file's path or its offset and length in the tar."""
    if path.is_dir():
        found = (file for name in ("images", "masks") for file in files_below(path / name, aliases=True))
        return {file.relative_to(path).as_posix(): file for file in found}
    with reading(path, UsageError, "is neither a folder nor an uncompressed tar"), tarfile.open(path, "r:") as tar:
        members = list(listed(tar, path))
    return {PurePosixPath(each.name).as_posix(): (each.offset_data, each.size) for each in members}
