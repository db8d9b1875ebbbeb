"""Remove the wrappers that training puts around models, and the prefixes that they leave in state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from partzoo.errors import UsageError, WeightsError

# Submodules of torch.compile, DataParallel and DistributedDataParallel, FSDP, activation checkpointing, and Fabric.
WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
PIECES = ("weight_g", "weight_v")  # stored by weight norm in place of a weight, before torch had parametrizations

Value = TypeVar("Value")


def unwrapped_model(model: nn.Module) -> Any:
    """Return the model inside ``torch.compile``, ``DataParallel``, ``DistributedDataParallel`` or FSDP."""
    # A compiled model has a length only if the model inside has one, so its truth cannot be asked for.
    while (inner := next((part for name, part in model.named_children() if name in WRAPPERS), None)) is not None:
        model = inner
    return model


def plain_names(state: Mapping[str, Value]) -> dict[str, Value]:
    """Remove the names of wrappers from a state dict's names, at any position in a name.

    Raises:
        WeightsError: two names become equal.
    """
    found: dict[str, Value] = {}
    for name, value in state.items():
        plain = ".".join(part for part in str(name).split(".") if part not in WRAPPERS)
        if plain in found:
            raise WeightsError(f"{name} and another tensor are both named {plain} once names of wrappers are removed.")
        found[plain] = value
    return found


def check_whole(state: Mapping[str, Any]) -> None:
    """Refuse tensors that weight norm or another parametrization stores in pieces, which no model of the zoo can load.

    Raises:
        UsageError: the state dict contains such pieces.
    """
    if pieces := [name for name in state if "parametrizations." in name or name.endswith(PIECES)]:
        raise UsageError(
            f"{pieces[0]} is a piece of a tensor, as weight norm stores it: call torch.nn.utils.parametrize."
            "remove_parametrizations (or remove_weight_norm) before you save the model."
        )
