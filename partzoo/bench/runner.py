"""Paired measurements: ours and the peer in turn, the ratio of every pair, and the machine they ran on."""

from __future__ import annotations

import gc
import importlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from partzoo.errors import UsageError
from partzoo.machine import hardware

ROWS = {
    "cold-load": "partzoo.bench.cold_load",
    "features": "partzoo.bench.features",
    "discover": "partzoo.bench.discover",
    "part-step": "partzoo.bench.part_step",
}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: what is compared.
        ours, peer: do the work once; what they return is dropped outside the measured time.
        ours_is, peer_is: what they do, in a few words.
        target: what the ratio should reach; None where none is set.
        measure: ``"speedup"``, the peer's time over ours, at least the target; ``"cost"``, our time over the
            peer's, at most the target.
        items: pictures in a call, where a rate says something.
        facts: what was checked beside the time: agreement, sizes.
    """

    name: str
    ours: Callable[[], Any]
    peer: Callable[[], Any]
    ours_is: str
    peer_is: str
    target: float | None = None
    measure: Literal["speedup", "cost"] = "speedup"
    items: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def run(
    rows: Iterable[str] | None = None,
    repetitions: int = 7,
    out: str | Path | None = None,
    *,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure rows of the table of ratios.

    Args:
        rows: names from ``ROWS``; None is all of them.
        repetitions: pairs of runs for every case, after one that is not counted.
        out: JSON file to write.
        quick: tiny models and inputs, no targets: shows that everything runs, measures nothing of interest.
        progress: is told about every case, one line.

    Returns:
        The record: ``hardware``, ``cases`` with seconds and ratio (median, min, max over pairs), ``quick``.

    Raises:
        UsageError: no such row, fewer than one repetition, or ``out`` cannot be written.
    """
    names = list(rows) if rows else list(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise UsageError(f"Unknown row {unknown[0]!r} of the bench; the rows are {', '.join(ROWS)}.")
    if repetitions < 1:
        raise UsageError(f"repetitions={repetitions}: measure at least one pair.")
    record = {"quick": quick, "repetitions": repetitions, "hardware": hardware(), "cases": []}
    for name in names:
        for case in importlib.import_module(ROWS[name]).cases(quick):
            result = {"row": name, **measure(replace(case, target=None) if quick else case, repetitions)}
            record["cases"].append(result)
            if progress:
                progress(line(result))
    if out is not None:
        write(record, Path(out))
    return record


def measure(case: Case, repetitions: int) -> dict[str, Any]:
    """Run ours and the peer in turn; the ratio is taken within each pair, so that a slow moment hits both."""
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(repetitions + 1):
        for name, work in (("ours", case.ours), ("peer", case.peer)):
            gc.collect()
            began = time.perf_counter()
            result = work()
            seconds[name].append(time.perf_counter() - began)
            del result
    ours, peer = seconds["ours"][1:], seconds["peer"][1:]
    over, under = (peer, ours) if case.measure == "speedup" else (ours, peer)
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    ratio = statistics.median(ratios)
    result = {
        "name": case.name,
        "measure": case.measure,
        "ratio": _rounded(ratio),
        "ratio_min": _rounded(min(ratios)),
        "ratio_max": _rounded(max(ratios)),
        "target": case.target,
        "ours": _side(case.ours_is, ours, case.items),
        "peer": _side(case.peer_is, peer, case.items),
        "facts": case.facts,
    }
    if case.target is not None:
        shown = round(ratio, 2)  # as it is printed: the same work on both sides must not fail by noise
        result["met"] = shown >= case.target if case.measure == "speedup" else shown <= case.target
    return result


def line(result: dict[str, Any]) -> str:
    """A case in one line: name, ratio, range, target."""
    what = "times as fast as" if result["measure"] == "speedup" else "times the time of"
    target = {True: ", target met", False: ", target missed"}.get(result.get("met"), "")
    return (
        f"{result['name']}: {result['ratio']:.2f} {what} the peer "
        f"({result['ratio_min']:.2f} to {result['ratio_max']:.2f}; "
        f"{result['ours']['seconds']:.4g} s against {result['peer']['seconds']:.4g} s{target})"
    )


def write(record: dict[str, Any], out: Path) -> None:
    """Write a record aside and rename it, so that no half of it is ever read."""
    aside = out.with_name(f"{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(record, indent=2) + "\n")
        aside.replace(out)
    except OSError as error:
        raise UsageError(f"-o {out} cannot be written: {error.strerror}.") from error


def _side(what: str, seconds: Sequence[float], items: int | None) -> dict[str, Any]:
    median = statistics.median(seconds)
    side = {"what": what, "seconds": _rounded(median), "all_seconds": [_rounded(s) for s in seconds]}
    return side | ({"per_second": _rounded(items / median)} if items else {})


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
