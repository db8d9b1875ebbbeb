"""Record what an evaluation skips."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from partzoo.errors import PartzooError
from partzoo.skipping import SkippedWarning, warn_of


class Failed:
    """The images and annotations that an evaluation has skipped, each once, no matter how often they are read.

    Args:
        strict: whether the first one stops the evaluation.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._reasons: dict[str, str] = {}

    @property
    def listed(self) -> list[dict[str, str]]:
        """Path of each skipped item, with the reason."""
        return [{"path": name, "reason": reason} for name, reason in self._reasons.items()]

    def pass_over(self, name: str, error: PartzooError) -> None:
        """Warn about an image that cannot be used; in a strict evaluation, raise its error instead."""
        if self._strict:
            raise error
        warn_of(name, error)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """List what is skipped inside the block: images, and annotations that readers skip with a warning.

        Warnings about items that are already listed are not shown again. Warnings come from all threads of the process,
        so only one evaluation can run at a time.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("always", SkippedWarning)
            show = warnings.showwarning

            def note(message: Warning | str, *where: Any, **more: Any) -> None:
                if isinstance(message, SkippedWarning):
                    if self._strict:
                        raise PartzooError(str(message))
                    if all(name in self._reasons for name, _ in message.items):
                        return
                    self._reasons |= dict(message.items)
                show(message, *where, **more)

            warnings.showwarning = note
            yield
