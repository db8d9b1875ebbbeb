"""``faces68``: parts of faces against 68 landmarks (and against five, as CelebA and AFLW are reported).

The data is a folder of ``train``, ``dev`` and ``report``, each an AVIF sheet of 160 x 160 tiles
(``dev.avif``) and ``dev.npz`` with ``landmarks`` (n, 68, 2) x, y in pixels, in 300-W order, and ``person``
(n,). The splits share no person: choose on ``dev``, report on ``report``.

- NMI and ARI: the label of the pixel nearest to each landmark against the landmark's number, pooled over the
  split, background being a label like any other; landmarks outside the picture are dropped. ``5``: eye
  centres, nose tip, mouth corners. ``68``: all.
- FG-NMI and FG-ARI: the same with the arg-max over the foreground scores only.
- NME: part centroids -> the five points, by a linear regression fitted on 1,000 training pictures; over the
  distance between the eyes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from partzoo.errors import ShapeError, UsageError
from partzoo.evaluate.landmarks import (
    OUTSIDE,
    LandmarkRegression,
    inter_ocular,
    labels_at,
    normalized_mean_error,
    part_centroids,
)
from partzoo.evaluate.metrics import Contingency, foreground_labels
from partzoo.evaluate.protocols.base import Example, LandmarkError, PartProtocol, need

SIDE = 160
SPLITS = ("train", "dev", "report")

Discover = Callable[[np.ndarray], "np.ndarray | tuple[np.ndarray, np.ndarray]"]


GET = (
    f"Give the folder that holds train, dev and report, each an .avif sheet of {SIDE} x {SIDE} tiles and an .npz "
    "with 'landmarks' and 'person' (--data DIR). The pictures are frames of the YouTube Faces set with 68 keypoints."
)


@dataclass(frozen=True, eq=False)
class Faces(Sequence):
    """One split: a sequence of examples, and all of it as arrays (a sheet is one file, so it is read at once).

    Attributes:
        pictures: ``(n, 160, 160, 3)`` uint8.
        landmarks: ``(n, 68, 2)`` float64, x, y in pixels.
        person: ``(n,)`` int; several pictures of one person are alike, so resample by person for error bars.
    """

    pictures: np.ndarray
    landmarks: np.ndarray
    person: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Faces(self.pictures[index], self.landmarks[index], self.person[index])
        return Example(self.pictures[index], self.landmarks[index], group=int(self.person[index]))

    def head(self, count: int | None) -> Faces:
        """The first pictures, all for None; the sheets are shuffled: any of them are a fair sample."""
        return self[:count]


def load(data: str | Path, split: Literal["train", "dev", "report"]) -> Faces:
    """Read one split.

    Raises:
        UsageError: no such split, its files are not in the folder, or they do not fit each other.
    """
    if split not in SPLITS:
        raise UsageError(f"Unknown split {split!r} of faces68; the splits are {', '.join(SPLITS)}.")
    data = need("faces68", data, (f"{split}.avif", f"{split}.npz"), GET)
    with np.load(data / f"{split}.npz") as arrays:
        landmarks, person = arrays["landmarks"].astype(np.float64), arrays["person"].astype(np.int64)
    with Image.open(data / f"{split}.avif") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    if rows * columns < len(person) or landmarks.shape != (len(person), 68, 2):
        raise UsageError(
            f"{data / split}.npz has {len(person)} persons and landmarks {landmarks.shape}, {data / split}.avif "
            f"{rows * columns} tiles: they must agree. {GET}"
        )
    tiles = pixels.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    return Faces(tiles[: len(person)], landmarks, person)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners ``(..., 5, 2)`` of 68 landmarks ``(..., 68, 2)``."""
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
    fit_pictures=1000,
    source="partzoo; after the five-point protocols of CelebA and AFLW (PartFormer, section 4.2)",
    rules=(
        "160 x 160 crops around one face; the splits share no person. The label of the pixel nearest to a landmark "
        "against the landmark's number, pooled over the split, background being a label like any other; landmarks "
        "outside the picture are dropped. 5: eye centres, nose tip, mouth corners; 68: all. FG-: arg-max over the "
        "foreground scores alone. NME: hard part centroids, an absent part at its mean over the fitting pictures, "
        "to the five points by least squares with intercept fitted on 1,000 training pictures; over the distance "
        "between the eyes."
    ),
    get=GET,
)


@dataclass(frozen=True)
class Reading:
    """All that the scores need of the predictions for a split: a few numbers a picture.

    Attributes:
        at5, at68: ``(n, 5)`` and ``(n, 68)`` labels at the landmarks, -1 outside the picture.
        foreground5, foreground68: the same with the background left out; None without scores.
        centroids: ``(n, k, 2)`` x, y in pixels, NaN where a part is absent.
    """

    at5: np.ndarray
    at68: np.ndarray
    foreground5: np.ndarray | None
    foreground68: np.ndarray | None
    centroids: np.ndarray


def read_parts(discover: Discover, faces: Faces, k: int, batch_size: int = 64) -> Reading:
    """Find the parts of every picture and keep what :func:`evaluate` needs (see there for ``discover``).

    Raises:
        ShapeError: ``discover`` returned something other than maps of the pictures' size.
    """
    batches = []
    for start in range(0, len(faces), batch_size):
        pictures, points = (
            faces.pictures[start : start + batch_size],
            faces.landmarks[start : start + batch_size],
        )
        found = discover(pictures)
        labels, scores = found if isinstance(found, tuple) else (found, None)
        labels = np.asarray(labels)
        if labels.shape != pictures.shape[:3]:
            raise ShapeError(f"discover must return labels {pictures.shape[:3]}, not {labels.shape}.")
        foreground = (None, None)
        if scores is not None:
            if np.shape(scores) != (len(pictures), k + 1, SIDE, SIDE):
                raise ShapeError(f"scores must be {(len(pictures), k + 1, SIDE, SIDE)}, not {np.shape(scores)}.")
            best = foreground_labels(scores, axis=1)
            foreground = labels_at(best, five_points(points)), labels_at(best, points)
        at = labels_at(labels, five_points(points)), labels_at(labels, points)
        batches.append((*at, *foreground, part_centroids(labels, k)))
    return Reading(*(None if column[0] is None else np.concatenate(column) for column in zip(*batches, strict=True)))


def evaluate(
    discover: Discover,
    data: str | Path,
    k: int,
    *,
    split: Literal["dev", "report"] = "report",
    fit_pictures: int = 1000,
    pictures: int | None = None,
    batch_size: int = 64,
) -> dict[str, float]:
    """Scores of a way to find parts, in per cent.

    Args:
        discover: pictures ``(n, 160, 160, 3)`` uint8 -> labels ``(n, 160, 160)``, 0 background, 1..k parts
            that mean the same in all calls; or ``(labels, scores)`` with scores ``(n, k + 1, 160, 160)``,
            background first, which adds the FG- scores.
        data: the folder, see the top of this module.
        k: number of parts.
        split: ``"dev"`` to choose, ``"report"`` to report.
        fit_pictures: training pictures that fit the regression.
        pictures: only the first so many of the split, None all.
        batch_size: pictures per call of ``discover``.

    Returns:
        ``nmi5``, ``ari5``, ``nmi68``, ``ari68``, ``nme``; with scores also ``fg_nmi5``, ``fg_ari5``,
        ``fg_nmi68`` and ``fg_ari68``.

    Raises:
        UsageError: the data is not there.
        ShapeError: ``discover`` returned something else.
    """
    fit, held = load(data, "train").head(fit_pictures), load(data, split).head(pictures)
    fitted, read = (read_parts(discover, faces, k, batch_size) for faces in (fit, held))
    scores = {}
    for prefix, at in (
        ("", {5: read.at5, 68: read.at68}),
        ("fg_", {5: read.foreground5, 68: read.foreground68}),
    ):
        for count, labels in at.items():
            if labels is not None:
                table = landmark_table(labels, k)
                scores |= {f"{prefix}nmi{count}": 100 * table.nmi(), f"{prefix}ari{count}": 100 * table.ari()}
    truth = five_points(held.landmarks)
    regression = LandmarkRegression(fitted.centroids, five_points(fit.landmarks))
    return scores | {"nme": normalized_mean_error(regression.predict(read.centroids), truth, inter_ocular(truth))}


def landmark_table(at: np.ndarray, k: int) -> Contingency:
    """The table of landmark numbers against the labels ``at`` them, ``(n, L)``, leaving out those outside."""
    number = np.broadcast_to(np.arange(at.shape[1]), at.shape)
    inside = at != OUTSIDE
    return Contingency(at.shape[1], k + 1).update(number[inside], at[inside])
