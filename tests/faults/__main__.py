"""Inject faults: ``python -m tests.faults [AREA ...] [--scale 0.1 | --ci] [--seed 0] [--record]``."""

import argparse
import importlib
import pkgutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from . import __path__ as package
from .table import markdown, record


def areas() -> list[str]:
    """Return the names of the modules that inject faults."""
    names = (module.name for module in pkgutil.iter_modules(package) if not module.name.startswith("_"))
    return sorted(name for name in names if hasattr(importlib.import_module(f".{name}", __package__), "inject"))


def main() -> int:
    """Inject the faults of the named areas, or of all, and return 1 if any did harm."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"one or more of {', '.join(areas())}; all by default")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the required faults that is injected")
    parser.add_argument("--ci", action="store_true", help="each area's own share; areas without one are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="keep the rows in results/reliability.json")
    asked = parser.parse_args()
    rows = []
    for name in asked.areas or areas():
        started = time.monotonic()
        area = importlib.import_module(f".{name}", __package__)
        scale = area.CI_SCALE if asked.ci else asked.scale
        if scale is None:
            continue
        with tempfile.TemporaryDirectory(prefix=f"faults-{name}-") as place:
            row = area.inject(scale, asked.seed, Path(place))
        row = replace(row, seconds=round(time.monotonic() - started, 1))
        rows.append(row)
        print(markdown([row]).splitlines()[-1], f"{row.seconds} s", *row.broken[:20], sep="\n  ", flush=True)
        if asked.record:
            record(name, row, f"python -m tests.faults {name} --scale {scale:g} --seed {asked.seed}")
    return 0 if all(not row.broken for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
