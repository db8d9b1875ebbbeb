"""Peak memory of a piece of work, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import partzoo


def rise(work: Callable[[], Any]) -> float:
    """By how many MiB the memory that this process holds rises at most while it works."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # from here on the peak counts afresh (Linux)
    held = _peak()
    work()
    return max(_peak() - held, 0.1)


def in_its_own_process(module: str, *arguments: str) -> Any:
    """What a module of partzoo prints as JSON when it runs in a fresh process."""
    path = os.pathsep.join(filter(None, [str(Path(partzoo.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _peak() -> float:
    """The most MiB that this process has held.

    Linux's own count comes first, since ``getrusage`` also counts what the parent held when it made the process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
