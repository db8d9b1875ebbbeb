"""Plot a ``partzoo bench`` record: ratios with their ranges and targets, and how costs grow."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partzoo.bench.report import machine
from partzoo.errors import UsageError, require
from partzoo.files import write_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MET, MISSED, FREE = "#1b7f5c", "#c4472b", "#5b6b7a"  # colours for a target that is met, missed, or not set
FORMATS = (".png", ".svg", ".pdf")
LINES = ("#1f5fa8", "#b3561d")


def check(path: str | Path) -> None:
    """Raise before the benchmark runs, rather than after it, where :func:`draw` would fail.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UsageError: the file's extension belongs to no supported format.
    """
    require("matplotlib.figure", "plot")
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"Cannot draw {str(path)!r}: its ending must be one of {', '.join(FORMATS)}.")


def draw(record: dict[str, Any], path: str | Path) -> None:
    """Draw a record as one figure.

    Args:
        record: the record returned by :func:`partzoo.bench.run`.
        path: file to write: .png, .svg or .pdf.

    Raises:
        MissingExtraError, UsageError: as in :func:`check`.
        PartzooError: the file cannot be written.
    """
    check(path)
    from matplotlib.figure import Figure

    cases = record["cases"]
    speedups, costs = ([case for case in cases if case["measure"] == kind] for kind in ("speedup", "cost"))
    grown = [case for case in cases if "by_images" in case["facts"]]
    heights = [0.9 + 0.36 * len(group) for group in (speedups, costs) if group] + ([2.9] if grown else [])
    figure = Figure(figsize=(10, sum(heights) + 0.7), layout="constrained")
    bands = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if speedups:
        _ratios(next(bands).subplots(), speedups, "times as fast as the peer (right is better)")
    if costs:
        _ratios(next(bands).subplots(), costs, "times the peer's time or memory (left is better)")
    if grown:
        axes = next(bands).subplots(1, 2)
        for axis, unit, title in zip(
            axes, ("seconds_per_image", "mebibytes"), ("milliseconds per image", "peak memory, MiB"), strict=True
        ):
            _growth(axis, [case for case in grown if case["unit"] == unit], title)
    dots = f"Dots: medians of {record['repetitions']} pairs of runs; whiskers: the smallest and the largest ratio."
    figure.suptitle("\n".join([*textwrap.wrap(machine(record), 150), dots]), fontsize=8, color="#333333")
    with write_aside(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=150)


def _ratios(axis: Axes, cases: list[dict[str, Any]], label: str) -> None:
    """Draw one line per case: the median, whiskers from the smallest to the largest ratio, and a bar at the target."""
    beside = axis.get_yaxis_transform()
    for place, case in enumerate(cases):
        colour = {True: MET, False: MISSED, None: FREE}[case.get("met")]
        low, high, ratio = case["ratio_min"], case["ratio_max"], case["ratio"]
        axis.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axis.plot([low, high], [place, place], "|", color=colour, markersize=8)
        axis.plot(ratio, place, "o", color=colour, markersize=6)
        axis.text(1.01, place, f"{ratio:.2f}", color=colour, va="center", fontsize=8, transform=beside)
        if case["target"] is not None:
            axis.plot([case["target"]] * 2, [place - 0.36, place + 0.36], color="black", linewidth=1.5)
    axis.axvline(1, color="#bbbbbb", linewidth=1, zorder=0)
    axis.set_xscale("log")
    low = min(1, *(case["ratio_min"] for case in cases))
    high = max(1, *(max(case["ratio_max"], case["target"] or 0) for case in cases))
    axis.set_xlim(low / 1.25, high * 1.35)
    ticks = [tick for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50) if low / 1.25 <= tick <= high * 1.35]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_yticks(range(len(cases)), [case["name"] for case in cases], fontsize=8)
    axis.set_ylim(len(cases) - 0.4, -0.6)
    axis.set_xlabel(f"{label}; black bar: target, green met, red missed, grey none set", fontsize=8)
    _bare(axis)


def _growth(axis: Axes, cases: list[dict[str, Any]], title: str) -> None:
    for case, colour in zip(cases, LINES, strict=False):
        scale = 1000 if case["unit"] == "seconds_per_image" else 1
        by_images = case["facts"]["by_images"]
        numbers, figures = [int(n) for n in by_images], [scale * figure for figure in by_images.values()]
        axis.plot(numbers, figures, "o-", color=colour, label=case["name"].partition(",")[0])
        for number, value in zip(numbers, figures, strict=True):
            above = all(value >= scale * other["facts"]["by_images"][str(number)] for other in cases)
            axis.annotate(
                f"{value:.3g}",
                (number, value),
                (0, 6 if above else -6),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                fontsize=8,
            )
    axis.set_xscale("log")
    axis.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axis.set_xticks([], minor=True)
    axis.margins(x=0.12)
    top = axis.get_ylim()[1]
    axis.set_ylim(-0.1 * top, 1.25 * top)
    axis.set_xlabel("images", fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.legend(frameon=False, fontsize=8)
    _bare(axis)


def _bare(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
