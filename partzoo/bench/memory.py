"""Measure the peak memory of a function in a separate process."""

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
    """Do the work and return by how much this process's memory rose at most, in MiB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the recorded peak (Linux)
    held = _peak()
    work()
    return max(_peak() - held, 0.1)


def in_its_own_process(module: str, *arguments: str) -> Any:
    """Run a module of partzoo in a fresh process and return what it prints, parsed as JSON."""
    path = os.pathsep.join(filter(None, [str(Path(partzoo.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _peak() -> float:
    """Return the peak memory of this process, in MiB.

    Linux's per-process count is preferred, because ``getrusage`` includes the parent's memory at the time of the fork.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
