"""Write a ``partzoo bench`` record as a Markdown report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from partzoo.bench.runner import UNITS

LOW_PRECISION = ("amx_bf16", "avx512_bf16", "avx512_vnni")  # instructions that speed up int8 and bfloat16


def markdown(record: dict[str, Any]) -> str:
    """Return a report: the machine, the table of ratios, and a table of how costs grow with the number of images."""
    cases = record["cases"]
    rows = [_row(case) for case in cases]
    pairs = f"{record['repetitions']} pairs of runs"
    medians = f"Ratios are medians of {pairs}, with the smallest and the largest ratio in brackets."
    parts = [f"{machine(record)} {medians}", _table(("what", "peer", "ratio, and what partzoo takes", "target"), rows)]
    grown = [case for case in cases if "by_images" in case["facts"]]
    if grown:
        numbers = list(grown[0]["facts"]["by_images"])
        head = ("images", *(f"{int(number):,}" for number in numbers))
        parts.append(_table(head, [_growth(case) for case in grown]))
    return "\n\n".join(parts)


def machine(record: dict[str, Any]) -> str:
    """Describe in one sentence the machine on which the figures were measured."""
    of = record["hardware"]
    has = [flag for flag in LOW_PRECISION if flag in of["flags"]]
    lacks = "" if "amx_bf16" in has else ", without AMX"
    gpu = f", {of['gpu']}" if of["gpu"] else ""
    quick = " Quick: tiny inputs, which measure nothing." if record["quick"] else ""
    return (
        f"Measured on {of['cpu']}, {of['cores']} cores "
        f"({', '.join(has) or 'no instructions for low precision'}{lacks}){gpu}, {of['threads']} threads, "
        f"load {of['load_average'][0] if of['load_average'] else 'unknown'} at the start; "
        f"torch {of['torch']}, timm {of['timm']}.{quick}"
    )


def ratio(case: dict[str, Any]) -> str:
    """Format a ratio as ``8.25 times as fast (8.20 to 14.00)``, or a cost as ``1.40 times the time (1.30 to 1.60)``."""
    cost = "the memory" if case["unit"] == "mebibytes" else "the time"
    how = "as fast" if case["measure"] == "speedup" else cost
    return f"{case['ratio']:.2f} times {how} ({case['ratio_min']:.2f} to {case['ratio_max']:.2f})"


def target(case: dict[str, Any]) -> str:
    """Return the target and whether it is met, or an empty string if none is set."""
    if case["target"] is None:
        return ""
    bound = "at least" if case["measure"] == "speedup" else "at most"
    return f"{bound} {case['target']:g}: {'met' if case['met'] else 'missed'}"


def _row(case: dict[str, Any]) -> list[str]:
    facts, about = case["facts"], []
    if facts.get("largest_difference") == 0 or facts.get("largest_difference_of_features") == 0:
        about.append("equal output")
    elif "cosine" in facts:
        about.append(f"cosine {facts['cosine']:.4f}, parts agree on {facts['part_agreement_percent']:.2f} % of pixels")
    if "fitted_on_at_most" in facts:
        about.append(f"fitted on {facts['fitted_on_at_most']} of them at most")
    name = case["name"] + (f": {'; '.join(about)}" if about else "")
    figure = f"{case['ours'][case['unit']]:.3g} {UNITS[case['unit']]}"
    bound = target(case)
    if "target_seconds" in facts:
        met = case["ours"]["seconds"] < facts["target_seconds"]
        bound += f"; under {facts['target_seconds']:g} s: {'met' if met else 'missed'}"
    return [name, case["peer"]["what"], f"{ratio(case)}, {figure}", bound.removeprefix("; ")]


def _growth(case: dict[str, Any]) -> list[str]:
    unit, figures = case["unit"], case["facts"]["by_images"].values()
    work = case["name"].partition(",")[0]
    if unit == "mebibytes":
        return [f"{work}: peak memory, MiB", *(f"{figure:.0f}" for figure in figures)]
    return [f"{work}: milliseconds per image", *(f"{1000 * figure:.1f}" for figure in figures)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ([cell.replace("|", "\\|") for cell in cells] for cells in (head, ["---"] * len(head), *rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
