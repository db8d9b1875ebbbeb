"""``faces68``: a protocol that compares face parts with 68 landmarks, and with five as for CelebA and AFLW.

The data is a folder of ``train``, ``dev`` and ``report``, each an AVIF sheet of 160 x 160 tiles
(``dev.avif``) and ``dev.npz`` with ``landmarks`` (n, 68, 2) x, y in pixels, in 300-W order, and ``person``
(n,). The splits share no person: choose on ``dev``, report on ``report``.

- NMI and ARI: the label of the pixel nearest to each landmark against the landmark's number, pooled over the
  split, background being a label like any other; landmarks outside the image are dropped. ``5``: eye
  centres, nose tip, mouth corners. ``68``: all.
- FG-NMI and FG-ARI: the same with the arg-max over the foreground scores only.
- NME: part centroids -> the five points, by a linear regression fitted on 1,000 training images; over the
  distance between the eyes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partzoo.archives import check_zip
from partzoo.data.reading import Example, need
from partzoo.errors import UsageError
from partzoo.evaluate.protocols.base import LandmarkError, PartProtocol
from partzoo.files import reading
from partzoo.images.opening import open_image

SIDE = 160
SPLITS = ("train", "dev", "report")


GET = (
    f"Give the folder that holds, for each of train, dev and report, an .avif sheet of {SIDE} x {SIDE} tiles "
    "and an .npz with 'landmarks' and 'person' (--data DIR). The images are frames of the YouTube Faces set with 68 "
    "keypoints."
)


@dataclass(frozen=True, eq=False)
class Faces(Sequence):
    """One split as a sequence of examples, and as arrays (a sheet is one file, so it is read at once).

    Attributes:
        images: ``(n, 160, 160, 3)`` uint8.
        landmarks: ``(n, 68, 2)`` float64, x, y in pixels.
        person: ``(n,)`` int; images of one person are similar, so resample by person for error bars.
    """

    images: np.ndarray
    landmarks: np.ndarray
    person: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Faces(self.images[index], self.landmarks[index], self.person[index])
        return Example(self.images[index], self.landmarks[index], group=int(self.person[index]))

    def head(self, count: int | None) -> Faces:
        """Return the first ``count`` images, or all for None; the sheets are shuffled, so these are a fair sample."""
        return self[:count]


def load(data: str | Path, split: str) -> Faces:
    """Read one split.

    Raises:
        UsageError: the split is unknown, its files are missing, or they do not fit each other.
    """
    if split not in SPLITS:
        raise UsageError(f"Unknown split {split!r} of faces68; the splits are {', '.join(SPLITS)}.")
    data = need("faces68", data, (f"{split}.avif", f"{split}.npz"), GET)
    landmarks, person = _annotations(data / f"{split}.npz")
    pixels = open_image(data / f"{split}.avif").pixels
    rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    if rows * columns < len(person) or landmarks.shape != (len(person), 68, 2):
        raise UsageError(
            f"{data / split}.npz has {len(person)} persons and landmarks {landmarks.shape}, {data / split}.avif "
            f"{rows * columns} tiles: they must agree. {GET}"
        )
    whole = pixels[: rows * SIDE, : columns * SIDE]
    tiles = whole.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    return Faces(tiles[: len(person)], landmarks, person)


def _annotations(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the landmarks and persons of a split.

    Raises:
        UsageError: the file is damaged, or a landmark is not finite.
    """
    with reading(file, UsageError, "holds no readable 'landmarks' and 'person'"):
        check_zip(file)
        with np.load(file) as arrays:
            landmarks, person = arrays["landmarks"].astype(np.float64), arrays["person"].astype(np.int64)
        if person.ndim != 1:
            raise ValueError(f"'person' is {person.shape}")
    odd = np.argwhere(~np.isfinite(landmarks))
    if len(odd):
        raise UsageError(f"{file} has a landmark of image {odd[0, 0]} that is not finite. {GET}")
    return landmarks, person


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Return eye centres, nose tip and mouth corners ``(..., 5, 2)`` from 68 landmarks ``(..., 68, 2)``."""
    eyes = [landmarks[..., 36:42, :].mean(-2), landmarks[..., 42:48, :].mean(-2)]
    return np.stack([*eyes, *(landmarks[..., i, :] for i in (30, 48, 54))], axis=-2)


FACES68 = PartProtocol(
    name="faces68",
    load=load,
    truths=68,
    report="report",
    dev="dev",
    readings={"5": five_points, "68": np.asarray},
    error=LandmarkError("inter-ocular"),
    fit_images=1000,
    source="partzoo; after the five-point protocols of CelebA and AFLW (PartFormer, section 4.2)",
    rules=(
        "The images are crops of 160 x 160 pixels around one face, and no person is in two splits. Each landmark "
        "takes the label of the nearest pixel. These labels, pooled over the split, are compared with "
        "the landmark numbers. The background is a label like any other, and landmarks outside the image are dropped. "
        "Figures with 5 use the centres of the eyes, the tip of the nose and the corners of the mouth; figures with "
        "68 use all landmarks. For FG-NMI and FG-ARI each landmark takes the strongest part. NME uses hard centroids; "
        "an absent part gets its mean centroid over the images used for the fit. The five points are predicted by "
        "least squares with intercept, fitted on 1,000 training images, and the error is divided by the distance "
        "between the eyes."
    ),
    get=GET,
)
