"""Choose the numeric precision of models from what the hardware supports natively."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import nn

from partzoo.errors import UsageError
from partzoo.models.base import Model

Precision = Literal["auto", "int8", "float32", "bfloat16", "float16"] | torch.dtype

Kind = TypeVar("Kind", bound=Model)

# Least share of a model's weights in linear layers for dtype="int8". Measured with AVX-512 VNNI: shares of 0.9 and more
# make models 1.8 to 1.9 times as fast, one of 0.63 makes it 1.07 times, and shares up to 0.3 change nothing.
LINEAR = 0.4


# Instruction sets by their name in torch.cpu.get_capabilities, with the functions of versions of torch without that.
CAPABILITIES = {
    "amx_bf16": "_is_amx_tile_supported",
    "avx512_bf16": "_is_avx512_bf16_supported",
    "avx512_vnni": "_is_vnni_supported",
}


def has_amx() -> bool:
    """Return whether this CPU has AMX tiles for bfloat16."""
    return _has("amx_bf16")


def has_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 natively: CUDA from Ampere on, CPUs with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (has_amx() or _has("avx512_bf16"))


def has_vnni() -> bool:
    """Return whether this CPU has AVX-512 VNNI, which speeds up ``dtype="int8"``."""
    return _has("avx512_vnni")


def _has(capability: str) -> bool:
    """Return whether this CPU has an instruction set of :data:`CAPABILITIES`."""
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get(capability))
    return bool(getattr(torch.cpu, CAPABILITIES[capability])())


def explain(device: torch.device) -> tuple[str, str]:
    """Return the precision that ``dtype="auto"`` chooses on a device, and the reason."""
    if device.type == "cuda" and has_bf16(device):
        return "bfloat16 autocast", "this GPU multiplies bfloat16 natively; parts are found in float32"
    if device.type == "cpu" and has_amx():
        return "bfloat16 autocast", "this CPU has AMX tiles; parts are found in float32"
    if has_bf16(device):
        return "float32", "no AMX; large transformers are faster with dtype='bfloat16' here, small models are not"
    return "float32", f"no AMX on this {device.type}, where bfloat16 is no faster than float32"


def set_precision(model: Kind, dtype: Precision, device: torch.device) -> Kind:
    """Move a model to a device and set its precision.

    Args:
        model: a model of the zoo.
        dtype: ``"auto"`` (parameters in float32, products in bfloat16 on GPUs and CPUs that :func:`explain` names),
            ``"int8"`` (dynamic quantization of the linear layers, CPU only), a dtype or its name.
        device: device of the model.

    Returns:
        The model itself; ``"int8"`` replaces its linear layers.

    Raises:
        UsageError: the precision is unknown, or ``"int8"`` is requested on a device other than a CPU or for a model
            most of whose weights are not in linear layers.
    """
    if dtype == "auto":
        if explain(device)[0] != "float32":
            model.autocast = torch.bfloat16
        dtype = torch.float32
    if dtype == "int8":
        if device.type != "cpu":
            raise UsageError(f"dtype='int8' runs on a CPU, not on {device}: use dtype='auto'.")
        return _quantize(model.to(device, torch.float32))
    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise UsageError(
            f"dtype={dtype!r} must be 'auto', 'int8', 'float32', 'bfloat16', 'float16' or a floating-point torch.dtype."
        )
    return model.to(device, chosen)


def exact(model: Kind) -> Kind:
    """Return a model that computes in its parameters' dtype on every machine, as ``dtype="auto"`` does not.

    A model that does so already is returned unchanged; otherwise the result is a copy that shares its parameters.
    """
    if getattr(model, "autocast", None) is None:
        return model
    model = copy.copy(model)
    model.autocast = None
    return model


def _quantize(model: Kind) -> Kind:
    # Deprecated by torch, which recommends torchao instead, a separate package.
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    chosen = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(model.keep_float)
    }
    share = sum(module.weight.numel() for module in chosen.values()) / sum(each.numel() for each in model.parameters())
    if share < LINEAR:
        raise UsageError(
            f"dtype='int8' would quantize {100 * share:.0f} % of the weights of {model.architecture} and be no faster: "
            "use dtype='float32'."
        )
    return quantize_dynamic(model, dict.fromkeys(chosen, per_channel_dynamic_qconfig), inplace=True)
