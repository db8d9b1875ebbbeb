"""Convert published Spatial Reasoning checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from partzoo.conversion.reading import is_state
from partzoo.errors import WeightsError
from partzoo.models.spatial.backbones import BACKBONES

READS = (
    (
        "Spatial Reasoning",
        '`{"backbone": ..., "relation": ...}`; the backbone alone, bare or as `{"backbone": ...}`',
        "`spatial-conv4`, `-resnet8`, `-resnet32`, `-resnet56`, `-resnet34`",
    ),
)
LARGE = "spatial-resnet34"  # its backbone has the names and shapes of torchvision's ResNet-34


def with_parts(state: Any, architecture: str | None = None) -> Any:
    """Return ``{"backbone": state}`` for a bare backbone of Spatial Reasoning, and anything else unchanged.

    Args:
        state: the content of a checkpoint.
        architecture: name of the architecture, without which the backbone of :data:`LARGE` is not recognized.
    """
    if not is_state(state):
        return state
    if architecture is not None:
        names = _backbone_names(architecture)
        return {"backbone": state} if names and names <= state.keys() else state
    small = (f"spatial-{name}" for name in BACKBONES if f"spatial-{name}" != LARGE)
    return {"backbone": state} if any(state.keys() == _backbone_names(name) for name in small) else state


def recognizes(state: Mapping[str, Any]) -> bool:
    """Return whether ``state`` holds a backbone, with or without a relation module."""
    return "backbone" in state and set(state) <= {"backbone", "relation"}


def is_large(state: Any) -> bool:
    """Return whether a state dict has the names of the backbone of :data:`LARGE`; it may then be any ResNet-34."""
    return is_state(state) and _backbone_names(LARGE) <= state.keys()


def _backbone_names(architecture: str) -> set[str]:
    """Return the names of the tensors of an architecture's backbone; none if there is no such architecture."""
    family, _, name = architecture.partition("-")
    if family != "spatial" or name not in BACKBONES:
        return set()
    with torch.device("meta"):
        return set(BACKBONES[name]().state_dict())


def unused(state: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """Return the names of the tensors that the model does not use; there are none."""
    return []


def from_published(
    state: Mapping[str, Mapping[str, Tensor]], architecture: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Convert a published model to one of the zoo.

    Args:
        state: ``{"backbone": ..., "relation": ...}``, the layout of the published files, or the backbone alone, as
            :func:`with_parts` gives it; an optimizer beside them is ignored.
        architecture: name of the architecture; None infers it from names and shapes.

    Returns:
        Name of the architecture, a configuration that states whether there is a relation module, and the state dict
        with this model's names. Published files do not name their data, so size, patches and normalization are the
        architecture's defaults.

    Raises:
        WeightsError: the state dicts do not come from Spatial Reasoning.
    """
    try:
        backbone, relation = state["backbone"], state.get("relation", {})
        name = architecture or "spatial-" + _published_backbone(backbone)
    except (KeyError, TypeError) as error:
        raise WeightsError(
            "This is not a checkpoint of Spatial Reasoning: pass one with the state dict 'backbone', and 'relation' to "
            "relate images, whose backbone is conv-4 or a ResNet-8, -32, -34 or -56."
        ) from error
    found = {f"backbone.{key}": value for key, value in backbone.items()}
    config = {} if relation else {"related": False}
    return name, config, found | {f"relation.{key}": value for key, value in relation.items()}


def _published_backbone(state: Mapping[str, Tensor]) -> str:
    if "layer1.conv.weight" in state:
        return "conv4"
    blocks = sum(key.startswith("layer1.") and key.endswith(".conv1.weight") for key in state)
    return {(3, 1): "resnet8", (3, 5): "resnet32", (3, 9): "resnet56", (7, 3): "resnet34"}[
        state["conv1.weight"].shape[-1], blocks
    ]
