"""Published Spatial Reasoning checkpoints under this zoo's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from partzoo.errors import WeightsError


def recognizes(state: Mapping[str, Any]) -> bool:
    """Whether it is a backbone and a relation module."""
    return set(state) == {"backbone", "relation"}


def unused(state: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """Nothing: all of it has a place in the model."""
    return []


def from_published(
    state: Mapping[str, Mapping[str, Tensor]], architecture: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """A checkpoint in the authors' layout as architecture, values of its configuration, and state dict.

    The layout is ``{"backbone": ..., "relation": ...}``; an optimizer beside them is left out. Such files do not say of
    what data they are: side, patches and normalization are the architecture's own. ``architecture``: None tells by the
    names and shapes.

    Raises:
        WeightsError: it is no such checkpoint.
    """
    try:
        backbone, relation = state["backbone"], state["relation"]
        name = architecture or "spatial-" + _published_backbone(backbone)
    except (KeyError, TypeError) as error:
        raise WeightsError(
            "This is no checkpoint of Spatial Reasoning: it needs state dicts 'backbone' and 'relation', and "
            "the backbone is conv-4 or a ResNet-8, -32, -34 or -56."
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
