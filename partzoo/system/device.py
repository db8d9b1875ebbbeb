"""The device that a model runs on."""

from __future__ import annotations

import torch

from partzoo.errors import UsageError, counted

Device = torch.device | str | None


def default_device() -> torch.device:
    """Return CUDA if available, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(device: Device) -> torch.device:
    """Return the device of this name; None returns :func:`default_device`.

    Args:
        device: a device or its name, such as ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    Raises:
        UsageError: there is no such device, or this machine cannot compute on it.
    """
    if device is None:
        return default_device()
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"device={str(device)!r} is not a device: choose 'cpu', 'cuda', 'cuda:1' or 'mps', or leave device= "
            "out for CUDA where there is a GPU, else the CPU."
        ) from error
    if reason := _missing(found):
        raise UsageError(f"device={str(found)!r}: {reason}.")
    try:
        torch.zeros(1, device=found).item()
    except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:
        why = str(error).strip().partition("\n")[0].rstrip(".")
        raise UsageError(
            f"device={str(found)!r} cannot be used here ({why}): choose 'cpu', or leave device= out."
        ) from error
    return found


def why_no_cuda() -> str:
    """Explain why torch finds no CUDA GPU if its build is the reason; otherwise return an empty string."""
    if torch.version.cuda is None and torch.version.hip is None:
        return "this torch was built without CUDA; see https://pytorch.org/get-started"
    return ""


def _missing(device: torch.device) -> str:
    """Explain why a GPU of this name does not exist here, and what to do; empty if nothing is known against it."""
    if device.type == "cuda" and not torch.cuda.is_available():
        why = f" ({reason})" if (reason := why_no_cuda()) else ""
        return f"torch finds no CUDA GPU on this machine{why}. Leave device= out to run on the CPU"
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        last = f" to 'cuda:{count - 1}'" if count > 1 else ""
        return f"this machine has {counted(count, 'CUDA GPU')}: choose 'cuda:0'{last}"
    if device.type == "mps" and not torch.backends.mps.is_available():
        return "torch finds no Apple GPU on this machine. Leave device= out to run on the CPU"
    return ""
