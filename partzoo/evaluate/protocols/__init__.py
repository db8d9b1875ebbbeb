"""Evaluation protocols by name. Each defines its data layout, image framing and figures; one module per family."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from partzoo.errors import UsageError

# Maps a name to module:constant, which is imported on demand.
_PROTOCOLS = {
    "aflw": "aflw:AFLW",
    "cars": "masks:CARS",
    "celeba": "celeba:CELEBA",
    "celeba-partformer": "celeba:CELEBA_PARTFORMER",
    "celebamask": "masks:CELEBAMASK",
    "cifar-10": "classification:CIFAR10",
    "cifar-100": "classification:CIFAR100",
    "cifar-100-20": "classification:CIFAR100_20",
    "clothing": "masks:CLOTHING",
    "coco-detection": "coco:COCO_DETECTION",
    "cub": "cub:CUB",
    "cub-partformer": "cub:CUB_PARTFORMER",
    "deepfashion": "deepfashion:DEEPFASHION",
    "ecssd": "masks:ECSSD",
    "faces68": "faces68:FACES68",
    "horses": "masks:HORSES",
    "partimagenet-ood": "partimagenet:PARTIMAGENET_OOD",
    "partimagenet-partformer": "partimagenet:PARTIMAGENET_PARTFORMER",
    "partimagenet-seg": "partimagenet:PARTIMAGENET_SEG",
    "pascal-part": "pascal_part:PASCAL_PART",
    "pascal-s": "masks:PASCAL_S",
    "physionet-2018": "physionet:PHYSIONET_2018",
    "stl-10": "classification:STL10",
    "taught-cars": "taught:TAUGHT_CARS",
    "taught-celebamask": "taught:TAUGHT_CELEBAMASK",
    "taught-clothing": "taught:TAUGHT_CLOTHING",
    "tiny-imagenet": "classification:TINY_IMAGENET",
}


def names() -> list[str]:
    """Return all names that :func:`get` accepts, sorted."""
    return sorted(_PROTOCOLS)


def get(name: str) -> Any:
    """Return a protocol by name. All kinds have ``name``, ``source``, ``rules`` and ``get``; see ``PartProtocol``.

    Raises:
        UsageError: there is no such protocol; the message suggests the closest names.
    """
    if name not in _PROTOCOLS:
        close = difflib.get_close_matches(name, _PROTOCOLS, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise UsageError(f"Unknown protocol {name!r}.{hint} The protocols are {', '.join(names())}.")
    module, _, constant = _PROTOCOLS[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), constant)
