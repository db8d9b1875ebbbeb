"""Scripts of the docs as modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[1] / "docs"


def page_script(name: str) -> ModuleType:
    """``docs/NAME.py``, with its folder where modules are looked for, as when it is run."""
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))
    return importlib.import_module(name)
