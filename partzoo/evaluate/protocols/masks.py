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

SPLIT_RULE = "Of five images in the order of their names, the first is in the report split, the second in dev."
ALL_RULE = "All images; nothing may be trained on them."
GET = "Give the folder that holds {name}.tar or {name}/, with images/ and masks/ in it (--data DIR). {what}"


@dataclass(frozen=True)
class ForegroundProtocol:
    """A protocol that measures a foreground against masks.

    Attributes:
        name: name for ``partzoo eval --protocol``, and of the set.
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
        "Score and mask at each image's own size, cut at 0.5; means over images. Maximal F over 255 thresholds, in the "
        "two ways of the published codes. Boundary F within 0.8 % of the diagonal. Failures: IoU below 0.5, and how "
        f"well a low quality predicts them (area under the ROC). {SPLIT_RULE if split == 'report' else ALL_RULE}"
    )
    return ForegroundProtocol(name, split, source, rules, GET.format(name=name, what=what))


ECSSD = _foreground(
    "ecssd", "all", "ECSSD: 1,000 images of complex scenes with masks (Shi et al., TPAMI 2016).",
    "TokenCut (CVPR 2022), SelfMask (CVPRW 2022), FOUND (CVPR 2023)",
)  # fmt: skip
PASCAL_S = _foreground(
    "pascal-s", "report", "PASCAL-S (Li et al., CVPR 2014); the mask is more than half of the viewers.", "partzoo",
)  # fmt: skip
HORSES = _foreground("horses", "report", "Weizmann horses (Borenstein and Ullman, ECCV 2002).", "partzoo")


def load(data: Path, split: str, name: str) -> Sequence[Example]:
    """Read images with their label maps, at their original size."""
    images = MaskedSet(find_set(data, name), split)

    def read(index: int) -> Example:
        each = images[index]
        return Example(each.pixels, mask=each.mask.astype("int64"), group=index)

    return Examples(range(len(images)), read)


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
            "One vocabulary for the set, fitted on the training split without its labels; part against label at each "
            "image's own size. Labelled: over pixels whose label is not 0, where background that was found counts as "
            "one more part; without that word: over all pixels; FG-: over labelled pixels, by the arg-max over the "
            "parts alone. Mirrored: share of labelled pixels that keep their part number in the mirror image. "
            f"{SPLIT_RULE}"
        ),
        get=GET.format(name=name, what=what),
    )


CELEBAMASK = _parts("celebamask", 19, "Part of CelebAMask-HQ (Lee et al., CVPR 2020), 256 x 256, 19 classes.")
CLOTHING = _parts("clothing", 60, "Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014), 59 labels.")
CARS = _parts("cars", 19, "Car Parts Dataset (Pasupa et al., 2021), 18 parts; not all of a car has a label.")
