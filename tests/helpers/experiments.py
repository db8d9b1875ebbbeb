"""Scripts of ``experiments/`` as modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def experiment(name: str) -> ModuleType:
    """``experiments/NAME.py``, with its folder where modules are looked for, as when it is run."""
    if str(EXPERIMENTS) not in sys.path:
        sys.path.append(str(EXPERIMENTS))
    return importlib.import_module(name)
