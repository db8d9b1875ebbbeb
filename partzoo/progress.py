"""How work that takes long reports where it stands."""

from __future__ import annotations

from collections.abc import Callable

# Called with what is being done, how much of it is done, and of how much.
ProgressCallback = Callable[[str, int, int], None]
