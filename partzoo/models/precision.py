"""Choose the numeric precision of models from what the hardware supports natively."""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import nn

from partzoo.errors import UsageError
from partzoo.models.base import Model

Precision = Literal["auto", "int8", "float32", "bfloat16", "float16"] | torch.dtype

Kind = TypeVar("Kind", bound=Model)


def default_device() -> torch.device:
    """Return CUDA if available, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_amx() -> bool:
    """Return whether this CPU has AMX tiles for bfloat16."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def has_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 natively: CUDA from Ampere on, CPUs with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (has_amx() or bool(torch.cpu.get_capabilities().get("avx512_bf16")))


def has_vnni() -> bool:
    """Return whether this CPU has AVX-512 VNNI, which speeds up ``dtype="int8"``."""
    return bool(torch.cpu.get_capabilities().get("avx512_vnni"))


def explain(device: torch.device) -> tuple[str, str]:
    """Return the precision that ``dtype="auto"`` chooses on a device, and the reason."""
    if device.type == "cuda":
        return "bfloat16", "CUDA devices multiply bfloat16 natively"
    if device.type == "cpu" and has_amx():
        return "bfloat16 autocast", "this CPU has AMX tiles"
    if has_bf16(device):
        return "float32", "no AMX; large transformers are faster with dtype='bfloat16' here, small models are not"
    return "float32", f"no AMX on this {device.type}, where bfloat16 is no faster than float32"


def set_precision(model: Kind, dtype: Precision, device: torch.device) -> Kind:
    """Move a model to a device and set its precision.

    Args:
        model: a model of the zoo.
        dtype: ``"auto"`` (CUDA: bfloat16; a CPU with AMX: bfloat16 autocast; otherwise float32), ``"int8"``
            (dynamic quantization of the linear layers, CPU only), a dtype or its name.
        device: device of the model.

    Returns:
        The model itself; ``"int8"`` replaces its linear layers.

    Raises:
        UsageError: the precision is unknown, or ``"int8"`` is requested on a device other than a CPU.
    """
    if dtype == "auto":
        if device.type == "cpu" and has_amx():
            model.autocast = torch.bfloat16
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
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


def _quantize(model: Kind) -> Kind:
    # Deprecated by torch, which recommends torchao instead, a separate package.
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    chosen = {
        name: per_channel_dynamic_qconfig
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(model.keep_float)
    }
    return quantize_dynamic(model, chosen, inplace=True)
