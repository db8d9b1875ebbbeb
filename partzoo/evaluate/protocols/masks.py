"""Protocols with masks (``ecssd``, ``pascal-s``, ``horses``) or label maps (``celebamask``, ``clothing``, ``cars``).

A set is a folder or an uncompressed tar with ``images/`` and ``masks/`` (:class:`partzoo.data.masks.MaskedSet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from partzoo.data.masks import MaskedSet, find_set
from partzoo.data.reading import Examples
from partzoo.evaluate.protocols.base import Example, PartProtocol

SPLIT_RULE = "Of every five images, sorted by name, the first is in the report split and the second in the dev split."
ALL_RULE = "All images are reported, and nothing may be trained on them."
GET = (
    "Give the folder that holds {name}.tar or {name}/, with images/ and masks/ in it (--data DIR). "
    "The data set is {what}"
)


@dataclass(frozen=True)
class ForegroundProtocol:
    """A protocol that compares predicted foregrounds with masks.

    Attributes:
        name: name of the protocol for ``partzoo eval --protocol``, and of its image set.
        split: split to report on.
        source, rules, get: as in :class:`partzoo.evaluate.protocols.base.PartProtocol`.
    """

    name: str
    split: str
    source: str
    rules: str
    get: str


def _foreground(name: str, split: str, what: str, source: str) -> ForegroundProtocol:
    rules = (
        "Score and mask are compared at the original size of each image, and the score is cut at 0.5. Figures are "
        "means over images. Maximal F is the best over 255 thresholds, with both definitions in the published code. "
        "Boundary F allows a distance of 0.8 % of the diagonal. Failures are images with an IoU below 0.5, and the "
        "area under the ROC curve measures how well a low quality predicts them. "
        f"{SPLIT_RULE if split == 'report' else ALL_RULE}"
    )
    return ForegroundProtocol(name, split, source, rules, GET.format(name=name, what=what))


ECSSD = _foreground(
    "ecssd", "all", "ECSSD (Shi et al., TPAMI 2016): 1,000 images of complex scenes with masks.",
    "TokenCut (CVPR 2022), SelfMask (CVPRW 2022), FOUND (CVPR 2023)",
)  # fmt: skip
PASCAL_S = _foreground(
    "pascal-s", "report",
    "PASCAL-S (Li et al., CVPR 2014). A pixel is foreground if more than half of the viewers chose it.", "partzoo",
)  # fmt: skip
HORSES = _foreground("horses", "report", "the Weizmann horses (Borenstein and Ullman, ECCV 2002).", "partzoo")


def load(data: Path, split: str, name: str) -> Sequence[Example]:
    """Read images with their label maps, at their original size."""
    images = MaskedSet(find_set(data, name), split)

    def read(index: int) -> Example:
        each = images[index]
        return Example(each.pixels, mask=each.mask.astype("int64"), group=index)

    return Examples(range(len(images)), read, images.name)


def _parts(name: str, truths: int, what: str) -> PartProtocol:
    return PartProtocol(
        name=name,
        load=lambda data, split: load(data, split, name),
        truths=truths,
        report="report",
        dev="dev",
        background=0,
        mirrored=True,
        source="partzoo",
        rules=(
            "One vocabulary is fitted on the training split without its labels. Parts and labels are compared at the "
            "original size of each image. NMI and ARI are taken over all pixels. Labelled NMI and ARI are taken over "
            "pixels whose label is not 0, where predicted background counts as one more part. FG-NMI and FG-ARI are "
            "taken over the same pixels, each of which takes its strongest part. Mirrored is the share of labelled "
            "pixels that keep their part number in the mirror image. "
            f"{SPLIT_RULE}"
        ),
        get=GET.format(name=name, what=what),
    )


CELEBAMASK = _parts(
    "celebamask", 19, "a subset of CelebAMask-HQ (Lee et al., CVPR 2020), with 256 x 256 pixels and 19 classes."
)
CLOTHING = _parts("clothing", 60, "Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014), with 59 labels.")
CARS = _parts(
    "cars", 19, "the Car Parts Dataset (Pasupa et al., 2021), with 18 parts, which do not cover the whole car."
)
