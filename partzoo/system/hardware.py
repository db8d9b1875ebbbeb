"""Describe this machine's hardware and library versions, which are recorded with every figure."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import partzoo
from partzoo.system.cores import usable_cores

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")


def hardware() -> dict[str, Any]:
    """Return processor, memory, GPU, library versions and load of this machine, ready for JSON."""
    known: dict[str, str] = {}
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for entry in cpuinfo.read_text().splitlines():
            key, _, value = entry.partition(":")
            known.setdefault(key.strip(), value.strip())
        flags = set(known.get("flags", "").split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "cpu": known.get("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory_gib": memory and round(memory / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "partzoo": partzoo.__version__,
        **{package: version(package) for package in ("torch", "timm", "numpy", "pillow")},
    }
