"""Compare a record of the bench with an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from partzoo.errors import UsageError
from partzoo.files import read_json

TOLERANCE = 1.1  # how much worse than the worst earlier pair a ratio may be: machines differ from day to day


def read_record(path: str | Path) -> dict[str, Any]:
    """Read a record that :func:`partzoo.bench.run` wrote.

    Raises:
        UsageError: the file cannot be read, or is not such a record.
    """
    try:
        record = read_json(Path(path))
        for case in record["cases"]:
            case["name"], case["measure"], case["ratio_min"] / case["ratio_max"]
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        raise UsageError(f"{path} is not a record of the bench ({type(error).__name__}).") from error
    return record


def slower(record: dict[str, Any], earlier: dict[str, Any]) -> list[str]:
    """Return a sentence for each case whose ratio is worse than all earlier ones, by more than a tenth.

    Cases that the earlier record does not have are left out.
    """
    former = {case["name"]: case for case in earlier["cases"]}
    found = []
    for case in record["cases"]:
        before = former.get(case["name"])
        if before is None or before["measure"] != case["measure"]:
            continue
        speedup = case["measure"] == "speedup"
        bound = before["ratio_min"] / TOLERANCE if speedup else before["ratio_max"] * TOLERANCE
        if case["ratio"] < bound if speedup else case["ratio"] > bound:
            found.append(f"{case['name']}: {case['ratio']:.2f}, and was {before['ratio']:.2f} (bound {bound:.2f}).")
    return found
