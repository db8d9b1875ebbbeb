"""What an evaluation has passed over."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from partzoo.errors import PartzooError
from partzoo.passing_over import PassedOverWarning, warn_of


class Failed:
    """The images and annotations that an evaluation has passed over, each once, however often they are read.

    Args:
        strict: whether the first one ends the evaluation.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._reasons: dict[str, str] = {}

    @property
    def listed(self) -> list[dict[str, str]]:
        """Path of each, and the reason."""
        return [{"path": name, "reason": reason} for name, reason in self._reasons.items()]

    def pass_over(self, name: str, error: PartzooError) -> None:
        """Warn of an image that cannot be used; where the evaluation is strict, raise its error."""
        if self._strict:
            raise error
        warn_of(name, error)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """List what the block warns of: images, and annotations that readers pass over.

        Warnings of what is listed already are not shown again. Warnings come from all threads of the process, so that
        only one evaluation can run at a time.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("always", PassedOverWarning)
            show = warnings.showwarning

            def note(message: Warning | str, *where: Any, **more: Any) -> None:
                if isinstance(message, PassedOverWarning):
                    if self._strict:
                        raise PartzooError(str(message))
                    if all(name in self._reasons for name, _ in message.items):
                        return
                    self._reasons |= dict(message.items)
                show(message, *where, **more)

            warnings.showwarning = note
            yield
