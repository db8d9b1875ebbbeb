"""Handling of unusable items of the data: they are skipped, named and listed, and the work goes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from partzoo.errors import PartzooError, TooLargeError

# Called with the name of an item and why it cannot be used; raises the error if the work must end there.
PassOver = Callable[[str, PartzooError], None]


class SkippedWarning(UserWarning):
    """Items of the data were skipped.

    Attributes:
        items: name of each item, and why it was skipped.
    """

    def __init__(self, message: str, items: Sequence[tuple[str, str]]) -> None:
        super().__init__(message)
        self.items = tuple(items)


def warn_of(name: str, error: PartzooError) -> None:
    """Name a skipped item in a warning; this is a :data:`PassOver`."""
    reason = reason_of(error)
    warnings.warn(SkippedWarning(f"Skipped: {named(name, reason)}", [(name, reason)]), stacklevel=2)


def reason_of(error: PartzooError) -> str:
    """Return the message of an error, without size limits of images, for callers that have no arguments for them."""
    return f"{error.reason}." if isinstance(error, TooLargeError) else str(error)


def named(name: str, reason: str) -> str:
    """Return a reason with the item's name before it, unless it already begins with the name."""
    return reason if reason.startswith(name) else f"{name}: {reason}"
