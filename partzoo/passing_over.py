"""Items of the data that cannot be used: they are named, passed over and listed, instead of ending the work."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from partzoo.errors import PartzooError, TooLargeError

# Called with the name of an item and why it cannot be used; it raises the error where that is to end the work.
PassOver = Callable[[str, PartzooError], None]


class PassedOverWarning(UserWarning):
    """Items of the data were passed over.

    Attributes:
        items: name of each item, and why it was passed over.
    """

    def __init__(self, message: str, items: Sequence[tuple[str, str]]) -> None:
        super().__init__(message)
        self.items = tuple(items)


def warn_of(name: str, error: PartzooError) -> None:
    """Name an item that is passed over in a warning; this is a :data:`PassOver`."""
    reason = reason_of(error)
    warnings.warn(PassedOverWarning(f"Passed over: {named(name, reason)}", [(name, reason)]), stacklevel=2)


def reason_of(error: PartzooError) -> str:
    """What an error says, without limits of images where the caller has no argument for them."""
    return f"{error.reason}." if isinstance(error, TooLargeError) else str(error)


def named(name: str, reason: str) -> str:
    """A reason behind the item's name, unless it begins with it already."""
    return reason if reason.startswith(name) else f"{name}: {reason}"
