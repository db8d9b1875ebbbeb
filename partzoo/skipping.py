"""Skip, name and list items of the data that cannot be used, so that the work continues."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from partzoo.errors import PartzooError, TooLargeError, one_line

# Called with the name of an item and why it cannot be used; raises the error if the work must end there.
PassOver = Callable[[str, PartzooError], None]


class SkippedWarning(UserWarning):
    """Items of the data were skipped.

    Attributes:
        items: name of each item, and why it was skipped.
    """

    def __init__(self, message: str, items: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.items = tuple(items)


def warn_of(name: str, error: PartzooError) -> None:
    """Name a skipped item in a warning; this is a :data:`PassOver`."""
    reason = reason_of(error)
    warnings.warn(SkippedWarning(f"Skipped: {named(name, reason)}", [(name, reason)]), stacklevel=2)


def reason_of(error: PartzooError) -> str:
    """Return the message of an error, but without advice on size limits, for callers that cannot set them."""
    return f"{error.reason}." if isinstance(error, TooLargeError) else str(error)


def named(name: str, reason: str) -> str:
    """Put the item's name before a reason, on one line, unless the reason already begins with it."""
    name = one_line(name)
    return reason if reason.startswith(name) else f"{name}: {reason}"
