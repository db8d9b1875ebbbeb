"""Profile training steps, and print the most expensive operators as a small table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from partzoo.files import expand_user, write_aside
from partzoo.places import make_folder


def operators(
    step: Callable[[], Any], title: str, about: str, out: str | Path | None = None, *, steps: int = 5, top: int = 15
) -> str:
    """Profile a step and return a table of the operators with the most self CPU time.

    Args:
        step: function that does the work once; it is run once, unmeasured, before the profile.
        title: heading of the table; the number of threads and the time are added.
        about: text to print below the table.
        out: text file to write, or None.
        steps: number of steps to profile.
        top: number of operators to list.
    """
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    rows = [
        f"{title}, {torch.get_num_threads()} threads; {total / steps / 1000:.0f} ms a step (mean of {steps})",
        "",
        f"{'operator':<44}{'own ms a step':>14}{'share':>8}{'calls':>8}",
    ]
    for event in events[:top]:
        own = event.self_cpu_time_total
        rows.append(f"{event.key[:43]:<44}{own / steps / 1000:>14.2f}{own / total:>8.1%}{event.count // steps:>8}")
    text = "\n".join([*rows, "", about, ""])
    if out is not None:
        path = expand_user(out)
        make_folder(path.parent)
        with write_aside(path) as file:
            file.write(text.encode())
    return text
