"""Convert published Spatial Reasoning checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from partzoo.errors import WeightsError

READS = (
    (
        "Spatial Reasoning",
        '`{"backbone": ..., "relation": ...}`',
        "`spatial-conv4`, `-resnet8`, `-resnet32`, `-resnet56`, `-resnet34`",
    ),
)


def recognizes(state: Mapping[str, Any]) -> bool:
    """Return whether ``state`` holds a backbone and a relation module."""
    return set(state) == {"backbone", "relation"}


def unused(state: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """Return the names of the tensors that the model does not use; there are none."""
    return []


def from_published(
    state: Mapping[str, Mapping[str, Tensor]], architecture: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Convert a published model to one of the zoo.

    Args:
        state: ``{"backbone": ..., "relation": ...}``, the layout of the published files; an optimizer beside them is
            ignored.
        architecture: name of the architecture; None infers it from names and shapes.

    Returns:
        Name of the architecture, an empty configuration, and the state dict with this model's names. Published files
        do not name their data, so size, patches and normalization are the architecture's defaults.

    Raises:
        WeightsError: the state dicts do not come from Spatial Reasoning.
    """
    try:
        backbone, relation = state["backbone"], state["relation"]
        name = architecture or "spatial-" + _published_backbone(backbone)
    except (KeyError, TypeError) as error:
        raise WeightsError(
            "This is not a checkpoint of Spatial Reasoning: pass one with the state dicts 'backbone' and 'relation', "
            "whose backbone is conv-4 or a ResNet-8, -32, -34 or -56."
        ) from error
    found = {f"backbone.{key}": value for key, value in backbone.items()}
    return name, {}, found | {f"relation.{key}": value for key, value in relation.items()}


def _published_backbone(state: Mapping[str, Tensor]) -> str:
    if "layer1.conv.weight" in state:
        return "conv4"
    blocks = sum(key.startswith("layer1.") and key.endswith(".conv1.weight") for key in state)
    return {(3, 1): "resnet8", (3, 5): "resnet32", (3, 9): "resnet56", (7, 3): "resnet34"}[
        state["conv1.weight"].shape[-1], blocks
    ]
