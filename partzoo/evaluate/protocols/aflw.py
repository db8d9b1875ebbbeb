"""``aflw``: a protocol on unaligned AFLW faces with five landmarks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from partzoo.data.annotations import warn_passed_over
from partzoo.data.reading import (
    Example,
    Examples,
    check_any,
    check_split,
    need,
    read_mat,
    read_rows,
    squash_plain,
    stretch,
)
from partzoo.errors import UsageError
from partzoo.evaluate.protocols.base import PartProtocol
from partzoo.evaluate.protocols.celeba import ERROR
from partzoo.files import reading
from partzoo.images.opening import open_image

SPLITS = ("train", "test")
LANDMARKS = 5
GET = (
    "Download aflw-recrop.tar.gz, the recropped AFLW of the DVE project (https://github.com/jamt9000/DVE, after the "
    "terms of https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/aflw/), and give its folder "
    "aflw_release-2 with output/ and, for train and test, aflw_SPLIT_images.txt and aflw_SPLIT_keypoints.mat "
    "(--data DIR)."
)


def load(data: str | Path, split: str, side: int = 256) -> Examples:
    """Read faces squashed to ``side`` x ``side`` pixels; ``split`` is train (10,122) or test (2,991).

    Raises:
        UsageError: the split is unknown, or the data is missing or damaged.
        MissingExtraError: scipy is not installed.
    """
    check_split("aflw", split, SPLITS)
    names, points = f"aflw_{split}_images.txt", f"aflw_{split}_keypoints.mat"
    data = need("aflw", data, ("output", names, points), GET)
    files = read_rows(data / names, "image", lambda row: data / "output" / " ".join(row))
    with reading(data / points, UsageError, "holds no numbers 'gt'"):
        landmarks = np.asarray(read_mat(data / points, "gt"), np.float64)[..., ::-1]  # y comes first in the file
    if landmarks.shape != (len(files), LANDMARKS, 2):
        raise UsageError(
            f"{data / points} holds 'gt' {landmarks.shape} for the {len(files)} images of {data / names}: it must "
            f"be {(len(files), LANDMARKS, 2)}. Download both files again."
        )
    faces = list(zip(files, landmarks, strict=True))
    odd = [file for file, its in faces if not np.isfinite(its).all()]
    warn_passed_over(data / points, [(file.name, "a landmark is not finite") for file in odd])
    kept = [face for face in faces if face[0] not in odd]
    check_any(data / points, kept, "landmarks")
    return Examples(kept, partial(_example, side=side), lambda face: str(face[0]))


def _example(face: tuple[Path, np.ndarray], side: int) -> Example:
    pixels = open_image(face[0]).pixels
    return Example(squash_plain(pixels, side), face[1] * stretch(pixels, side))


AFLW = PartProtocol(
    name="aflw",
    load=load,
    truths=LANDMARKS,
    grid=128,
    error=ERROR,
    source="PartFormer, sections 4.1 and 4.2 (no code for AFLW); split: Thewlis et al., ICCV 2017",
    rules=(
        "10,122 faces are for training and fitting, and 2,991 for reporting. The paper gives the split, the five "
        "landmarks and the inter-ocular NME. The other rules are ours and follow celeba-partformer: the image is "
        "squashed to 256 x 256 without antialiasing, a landmark takes the map values of the nearest cell on a "
        "128 x 128 grid, and NME uses soft centroids, z-scores on the training split, and least squares without "
        "intercept. Coordinates are used as stored, counted from 0."
    ),
    get=GET,
)
