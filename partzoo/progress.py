"""The type of the callbacks through which long computations report their progress."""

from __future__ import annotations

from collections.abc import Callable

# Called with the name of the step, the number of finished items, and the total number of items.
ProgressCallback = Callable[[str, int, int], None]
