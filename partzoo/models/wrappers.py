"""What training wraps models in, and the names that it leaves in their state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from partzoo.errors import UsageError, WeightsError

# Submodules of torch.compile, DataParallel and DistributedDataParallel, FSDP, and activation checkpointing.
WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
PIECES = ("weight_g", "weight_v")  # what weight norm stores in place of a weight, before torch had parametrizations

Value = TypeVar("Value")


def unwrapped_model(model: nn.Module) -> Any:
    """The model inside ``torch.compile``, ``DataParallel``, ``DistributedDataParallel`` or FSDP."""
    while inner := next((part for name, part in model.named_children() if name in WRAPPERS), None):
        model = inner
    return model


def plain_names(state: Mapping[str, Value]) -> dict[str, Value]:
    """A state dict with the names that it has without wrappers, wherever in a name they stand.

    Raises:
        WeightsError: two names become the same.
    """
    found: dict[str, Value] = {}
    for name, value in state.items():
        plain = ".".join(part for part in str(name).split(".") if part not in WRAPPERS)
        if plain in found:
            raise WeightsError(f"{name} and another tensor are both {plain}: the names of wrappers cannot be removed.")
        found[plain] = value
    return found


def check_whole(state: Mapping[str, Any]) -> None:
    """Refuse tensors that weight norm or another parametrization stores in pieces, which no model of the zoo loads.

    Raises:
        UsageError: there are some.
    """
    if pieces := [name for name in state if "parametrizations." in name or name.endswith(PIECES)]:
        raise UsageError(
            f"{pieces[0]} is a piece of a tensor, as weight norm stores it: call torch.nn.utils.parametrize."
            "remove_parametrizations (or remove_weight_norm) before you save the model."
        )
