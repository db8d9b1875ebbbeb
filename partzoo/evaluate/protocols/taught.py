"""Protocols that teach parts with few labelled images: ``taught-celebamask``, ``taught-cars``, ``taught-clothing``."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from partzoo.evaluate.protocols.masks import GET, SPLIT_RULE

COUNTS = (1, 5, 20, 100)  # numbers of labelled images
FREQUENT = 0.003  # share of the reported pixels from which a label counts


@dataclass(frozen=True)
class TaughtProtocol:
    """A protocol that compares taught parts with label maps.

    Attributes:
        name: name of the protocol for ``partzoo eval --protocol``.
        data: name of its image set.
        labels: names of the labels 1, 2, ...
        joined: number of the label that each label of the set becomes; empty if they stay as they are.
        source, rules, get: as in :class:`partzoo.evaluate.protocols.base.PartProtocol`.
    """

    name: str
    data: str
    labels: tuple[str, ...]
    get: str
    rules: str
    joined: tuple[int, ...] = field(default=())
    source: str = "partzoo"

    def labels_of(self, mask: np.ndarray) -> np.ndarray:
        """Return the protocol's labels of a mask of the set."""
        return np.array(self.joined, np.uint8)[mask] if self.joined else mask


def _taught(data: str, labels: str, what: str, joined: tuple[int, ...] = (), rule: str = "") -> TaughtProtocol:
    rules = (
        "For each draw, parts are taught with 1, 5, 20 and 100 labelled images, the first of a random order of the "
        "training split, and found in the report split at the original size of each image. Left and right differ. IoU "
        f"is pooled over all pixels and averaged over the labels, background included, that have more than "
        f"{FREQUENT:.1%} of them; labels that the drawn images do not show count as 0. The floor, in brackets, is a "
        f"logistic regression of the same cells' features, colour and place, without mirror images. {rule}{SPLIT_RULE}"
    )
    get = GET.format(name=data, what=what)
    return TaughtProtocol(f"taught-{data}", data, tuple(labels.split()), get, rules, joined)


TAUGHT_CELEBAMASK = _taught(
    "celebamask",
    "skin nose glasses l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat earring necklace neck cloth",
    "a subset of CelebAMask-HQ (Lee et al., CVPR 2020), with 256 x 256 pixels and 19 classes.",
)
TAUGHT_CARS = _taught(
    "cars",
    "back_bumper back_glass back_left_door back_left_light back_right_door back_right_light front_bumper front_glass "
    "front_left_door front_left_light front_right_door front_right_light hood left_mirror right_mirror tailgate trunk "
    "wheel",
    "the Car Parts Dataset (Pasupa et al., 2021), with 18 parts, which do not cover the whole car.",
)
# Garments of Clothing Co-Parsing by number: 1 hair, 2 skin, 3 upper, 4 lower, 5 shoes, 6 bag, 7 other.
_GARMENTS = {
    1: (19,),
    2: (41,),
    3: (4, 5, 6, 8, 10, 11, 13, 14, 22, 23, 24, 26, 35, 38, 46, 48, 49, 50, 51, 54, 55),
    4: (25, 27, 30, 31, 40, 42, 45, 53),
    5: (7, 12, 16, 21, 28, 32, 36, 39, 43, 58),
    6: (2, 33, 56),
}
TAUGHT_CLOTHING = _taught(
    "clothing",
    "hair skin upper lower shoes bag other",
    "Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014), with 59 labels.",
    (0, *(next((part for part, own in _GARMENTS.items() if label in own), 7) for label in range(1, 59))),
    "The 58 garments are joined to hair, skin, upper and lower garments, shoes, bags and others. ",
)
