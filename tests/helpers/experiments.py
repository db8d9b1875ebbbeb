"""Import of the scripts in ``experiments/`` as modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def experiment(name: str) -> ModuleType:
    """Import ``experiments/NAME.py`` with its folder on the module path, as when it is run."""
    if str(EXPERIMENTS) not in sys.path:
        sys.path.append(str(EXPERIMENTS))
    return importlib.import_module(name)
