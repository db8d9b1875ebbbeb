"""The cores that this process may use, and how several threads of ours share them with torch."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    It is that of the cores that it may run on, or the quota of its cgroup or of one above it, if that is smaller.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([allowed, *(max(1, math.ceil(quota)) for quota in _quotas())])


def worker_threads() -> int:
    """Return how many threads of ours should work at a time: one for each core, and one more, as some wait for a disk.

    They count on no more cores than torch has threads; before torch is imported, that number is ``OMP_NUM_THREADS``.
    Thus a process of several, each of which has its share of the cores, keeps to that share.
    """
    return min(usable_cores(), _library_threads()) + 1


def _library_threads() -> int:
    if (torch := sys.modules.get("torch")) is not None:
        return torch.get_num_threads()
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(text) if text.isdecimal() and int(text) else usable_cores()


_lock = threading.Lock()
_sharing = 0
_own = 1


@contextlib.contextmanager
def one_library_thread() -> Iterator[None]:
    """Let torch compute with one thread in a block, in this thread and in those that call :func:`keep_to_one_thread`.

    Its number of threads belongs to the process, so several of these blocks may last at a time.
    """
    global _sharing, _own
    if (torch := sys.modules.get("torch")) is None:
        yield
        return
    with _lock:
        if not _sharing:
            _own = torch.get_num_threads()
        _sharing += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _sharing -= 1
            torch.set_num_threads(_own)


def keep_to_one_thread() -> None:
    """Let torch compute with one thread in this thread."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


def _quotas() -> Iterator[float]:
    """Yield the quotas, in cores, of this process's cgroup and of those above it; none where there are no cgroups."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = CGROUPS / "cpu" if controllers else CGROUPS
        group = top.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
        for folder in (group, *group.parents):
            yield from _quota(folder)
            if folder == top:  # in a container, it is that of the container
                break


def _quota(folder: Path) -> Iterator[float]:
    """Yield the quota of a cgroup, in cores, if it has any."""
    with contextlib.suppress(OSError, ValueError):
        if (file := folder / "cpu.max").exists():
            quota, period = file.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota.strip() != "max" and int(quota) > 0:
            yield int(quota) / int(period)
