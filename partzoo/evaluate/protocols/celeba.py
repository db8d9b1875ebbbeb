"""``celeba`` and ``celeba-partformer``: protocols on unaligned CelebA faces with five landmarks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from partzoo.data.annotations import warn_passed_over
from partzoo.data.reading import Example, Examples, check_split, floats, need, read_rows, squash_plain, stretch
from partzoo.errors import UsageError
from partzoo.evaluate.protocols.base import LandmarkError, PartProtocol
from partzoo.images.opening import open_image

LISTS = {"train": "cele_train_lm.txt", "mafl-train": "MAFL_train_lm.txt", "mafl-test": "MAFL_test_lm.txt"}
LANDMARKS = 5
FORM = "image,x1,y1,...,x5,y5"
GET = (
    "Give a folder with img_celeba/, the in-the-wild images of CelebA (https://mmlab.ie.cuhk.edu.hk/projects/"
    f"CelebA.html, img_celeba.7z), and the lists {', '.join(LISTS.values())}, with lines 'image,x1,y1,...,x5,y5', as "
    "https://github.com/Jiahao-UTS/UnsupervisedPart publishes them (--data DIR)."
)


def load(data: str | Path, split: str, side: int = 224) -> Examples:
    """Read faces squashed to ``side`` x ``side`` pixels; ``split`` is train (45,609), mafl-train (5,379), -test (283).

    Raises:
        UsageError: the split is unknown, or the data is missing or damaged.
    """
    return _faces(data, split, partial(_example, side=side))


def load_partformer(data: str | Path, split: str, side: int = 256) -> Examples:
    """Read faces as :func:`load`, but set coordinates outside the image to 0.5, as in PartFormer's code."""
    return _faces(data, split, partial(_example, side=side, outside=0.5))


def _faces(data: str | Path, split: str, read) -> Examples:
    check_split("celeba", split, tuple(LISTS))
    data = need("celeba", data, ("img_celeba", LISTS[split]), GET)

    passed: list[tuple[str, str]] = []

    def face(row: list[str]) -> tuple[Path, np.ndarray] | None:
        try:
            return data / "img_celeba" / row[0].strip(), floats(row[1:], len(row) - 1).reshape(LANDMARKS, 2)
        except ValueError:
            passed.append((row[0].strip(), f"its landmarks are {','.join(row[1:])!r:.40}, not ten finite numbers"))
            return None

    faces = [each for each in read_rows(data / LISTS[split], FORM, face, ",") if each is not None]
    if not faces:
        raise UsageError(f"{data / LISTS[split]} has no line that is {FORM!r}. Download the file again.")
    warn_passed_over(data / LISTS[split], passed)
    return Examples(faces, read, lambda face: str(face[0]))


def _example(face: tuple[Path, np.ndarray], side: int, outside: float | None = None) -> Example:
    file, landmarks = face
    pixels = open_image(file).pixels
    points = landmarks * stretch(pixels, side)
    if outside is not None:
        points = np.where((points > 0) & (points <= side), points, outside)
    return Example(squash_plain(pixels, side), points)


ERROR = LandmarkError("inter-ocular", centroids="soft", standardize=True)
_RULES = (
    "Only faces that cover at least 30 % of the image are in the lists. The whole image and its landmarks are "
    "squashed to {side} x {side} (bilinear without antialiasing). All five landmarks count: eyes, nose and corners of "
    "the mouth. Each takes the map values of the nearest cell on a 128 x 128 grid; outside the image these are zeros. "
    "NMI and ARI are taken over the 283 MAFL test faces. NME uses soft centroids of the foreground maps. Centroids "
    "and landmarks are z-scored on {fit}, the fit is least squares without intercept, and the error is divided by the "
    "distance between the eyes.{more}"
)

CELEBA = PartProtocol(
    name="celeba",
    load=load,
    truths=LANDMARKS,
    fit="mafl-train",
    report="mafl-test",
    grid=128,
    error=ERROR,
    source="MPAE, section 4 and its code (CelebA); NME: PartFormer's code",
    rules=_RULES.format(
        side=224,
        fit="the MAFL training faces",
        more=" MPAE's code computes no NME, so we compute it as the earlier code of its first author does.",
    ),
    get=GET,
)

CELEBA_PARTFORMER = PartProtocol(
    name="celeba-partformer",
    load=load_partformer,
    truths=LANDMARKS,
    fit="mafl-train",
    report="mafl-test",
    grid=128,
    error=ERROR,
    source="PartFormer, sections 4.1 and 4.2, and its code (CelebA)",
    rules=_RULES.format(
        side=256,
        fit="the 5,379 MAFL training faces of the code (the paper prints 5,397)",
        more=" A coordinate at or below 0 or above 256 becomes 0.5.",
    ),
    get=GET,
)
