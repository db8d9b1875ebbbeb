"""Time our code and a peer in turn, and record the ratio of every pair with the machine's details."""

from __future__ import annotations

import gc
import importlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from partzoo.errors import UsageError
from partzoo.files import expand_user, read_json, write_aside
from partzoo.locks import locked
from partzoo.places import check_place, made_folder
from partzoo.system.device import Device, device_of
from partzoo.system.hardware import hardware

# Module of each row. It defines `cases(quick)`, whose cases are run in turn and timed, or, if it measures by itself,
# `outcomes(quick, repetitions)`.
ROWS = {
    "cold-load": "partzoo.bench.cold_load",
    "features": "partzoo.bench.features",
    "discover": "partzoo.bench.discover",
    "folder": "partzoo.bench.folder",
    "mpae": "partzoo.bench.mpae",
    "engines": "partzoo.bench.engines",
    "part-step": "partzoo.bench.part_step",
    "spatial-step": "partzoo.bench.spatial_step",
    "growth": "partzoo.bench.growth",
    "commands": "partzoo.bench.commands",
}
BUILDS = ("commands",)  # their functions compare with the build in a wheel
ANYWHERE = (
    "features",
    "discover",
    "spatial-step",
    "growth",
)  # their functions take a device; the others run on the CPU
Unit = Literal["seconds", "seconds_per_image", "cpu_seconds", "cpu_seconds_per_image", "mebibytes"]
UNITS: dict[Unit, str] = {
    "seconds": "s",
    "seconds_per_image": "s per image",
    "cpu_seconds": "s of the processor",
    "cpu_seconds_per_image": "s of the processor per image",
    "mebibytes": "MiB",
}


@dataclass(frozen=True)
class Comparison:
    """A comparison of our code with a peer: what both sides do, and the target.

    Attributes:
        name: name of the comparison.
        ours_is, peer_is: short descriptions of the two sides.
        target: ratio to reach, or None.
        measure: ``"speedup"`` for the peer's figure over ours, which must be at least the target; ``"cost"`` for our
            figure over the peer's, which must be at most the target.
        unit: unit of the figures, a key of ``UNITS``.
        items: number of images in a call, for rows that report a rate.
        facts: results of checks besides the time, such as agreement and sizes.
    """

    name: str
    ours_is: str
    peer_is: str
    target: float | None = None
    measure: Literal["speedup", "cost"] = "speedup"
    unit: Unit = "seconds"
    items: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


FORMAT = 1  # version of the record's format


@dataclass(frozen=True, kw_only=True)
class Case(Comparison):
    """A timed comparison: ``ours`` and ``peer`` do the work once; their return values are freed outside the
    measured time."""

    ours: Callable[[], Any]
    peer: Callable[[], Any]


def run(
    rows: Iterable[str] | None = None,
    repetitions: int = 7,
    out: str | Path | None = None,
    *,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
    device: Device = None,
    against: str | Path | None = None,
) -> dict[str, Any]:
    """Run benchmarks and return a record of their ratios.

    Args:
        rows: names from ``ROWS``; None measures all rows, but ``commands`` only with ``against``.
        repetitions: number of pairs of runs for every case, after one that is not counted; ``growth`` always uses one.
        out: JSON file to write.
        quick: whether to use tiny models and inputs without targets; this shows that everything runs, and measures
            nothing of interest.
        progress: function that is called with one line about every case.
        device: where the models of the rows ``features``, ``discover``, ``spatial-step`` and ``growth`` run, as for
            :func:`partzoo.load`; those of the others always run on the CPU.
        against: wheel of another build of partzoo, which the row ``commands`` compares this one with.

    Returns:
        The record, with ``hardware``, ``cases`` (figures and ratio: median, min, max over pairs) and ``quick``.

    Raises:
        UsageError: a row is unknown, there is less than one repetition, this machine does not have the device, or
            ``out`` is not a record of the bench.
        PartzooError: ``out`` cannot be written, or another process writes it.
    """
    names = list(rows) if rows else [name for name in ROWS if against is not None or name not in BUILDS]
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise UsageError(f"Unknown row {unknown[0]!r} of the bench. The rows are {', '.join(ROWS)}.")
    if repetitions < 1:
        raise UsageError(f"repetitions={repetitions}, but at least 1 is needed.")
    place = device_of(device)
    if out is None:
        return _record(names, repetitions, quick, progress, place, against)
    out = expand_user(out)
    with made_folder(out.parent):
        check_place(out)
        _check_replaced(out)
        with locked(out):
            record = _record(names, repetitions, quick, progress, place, against)
            with write_aside(out) as file:  # no reader sees half of it
                file.write((json.dumps(record, indent=2) + "\n").encode())
    return record


def _record(
    names: Sequence[str],
    repetitions: int,
    quick: bool,
    progress: Callable[[str], None] | None,
    device: torch.device,
    against: str | Path | None,
) -> dict[str, Any]:
    """Measure rows, and return the record."""
    cases: list[dict[str, Any]] = []
    record = {"format": FORMAT, "quick": quick, "repetitions": repetitions, "hardware": hardware(), "cases": cases}
    for name in names:
        for outcome in _outcomes(name, quick, repetitions, device, against):
            result = {"row": name, **outcome}
            cases.append(result)
            if progress:
                progress(line(result))
    return record


def _check_replaced(out: Path) -> None:
    """Refuse to replace anything but a record of the bench."""
    if not out.exists():
        return
    try:
        ours = "cases" in read_json(out)
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise UsageError(f"out={out} exists and is not a record of the bench. Choose another file.")


def measure(case: Case, repetitions: int) -> dict[str, Any]:
    """Run our code and the peer in turn; the ratio is taken within each pair, so a slow moment affects both sides."""
    clock = time.process_time if case.unit == "cpu_seconds" else time.perf_counter
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(repetitions + 1):
        for name, work in (("ours", case.ours), ("peer", case.peer)):
            gc.collect()
            began = clock()
            result = work()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            seconds[name].append(clock() - began)
            del result
    return compared(case, seconds["ours"][1:], seconds["peer"][1:])


def compared(what: Comparison, ours: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """Summarize pairs of figures: their ratio (median, min, max), both sides, and whether the target is met."""
    over, under = (peer, ours) if what.measure == "speedup" else (ours, peer)
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    ratio = statistics.median(ratios)
    result = {
        "name": what.name,
        "measure": what.measure,
        "unit": what.unit,
        "ratio": _rounded(ratio),
        "ratio_min": _rounded(min(ratios)),
        "ratio_max": _rounded(max(ratios)),
        "target": what.target,
        "ours": _side(what, what.ours_is, ours),
        "peer": _side(what, what.peer_is, peer),
        "facts": what.facts,
    }
    if what.target is not None:
        shown = round(ratio, 2)  # compare the printed value, or noise would fail a row that does the same work twice
        result["met"] = shown >= what.target if what.measure == "speedup" else shown <= what.target
    return result


def line(result: dict[str, Any]) -> str:
    """Format a case as one line: name, ratio, range and target."""
    unit = result["unit"]
    cost = "times the memory of" if unit == "mebibytes" else "times the time of"
    what = "times as fast as" if result["measure"] == "speedup" else cost
    target = (", target met" if result["met"] else ", target missed") if "met" in result else ""
    return (
        f"{result['name']}: {result['ratio']:.2f} {what} the peer "
        f"({result['ratio_min']:.2f} to {result['ratio_max']:.2f}; "
        f"{result['ours'][unit]:.4g} against {result['peer'][unit]:.4g} {UNITS[unit]}{target})"
    )


def _outcomes(
    row: str, quick: bool, repetitions: int, device: torch.device, against: str | Path | None
) -> Iterator[dict[str, Any]]:
    module = importlib.import_module(ROWS[row])
    where: dict[str, Any] = {"device": device} if row in ANYWHERE else {"against": against} if row in BUILDS else {}
    if hasattr(module, "outcomes"):
        yield from module.outcomes(quick, repetitions, **where)
    else:
        for case in module.cases(quick, **where):
            yield measure(replace(case, target=None) if quick else case, repetitions)


def _side(of: Comparison, what: str, figures: Sequence[float]) -> dict[str, Any]:
    median = statistics.median(figures)
    side = {"what": what, of.unit: _rounded(median), f"all_{of.unit}": [_rounded(figure) for figure in figures]}
    return side | ({"per_second": _rounded(of.items / median)} if of.items else {})


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
