"""The errors that partzoo raises. Each message states the problem with the value found, and how to fix it."""

from __future__ import annotations

import importlib
from types import ModuleType


class PartzooError(Exception):
    """Base class of all errors that partzoo raises deliberately."""


class UsageError(PartzooError, ValueError):
    """Raised if an argument is invalid, for example out of range or unknown; the command line exits with status 2."""


class UnknownModelError(UsageError):
    """Raised if no architecture, tag or alias has the given name."""


class ShapeError(UsageError):
    """Raised if a tensor has a shape that the function does not accept."""


class ImageError(PartzooError):
    """Raised if an image cannot be read, or is too large to be read safely."""


class TooLargeError(ImageError):
    """Raised if an image has more pixels or bytes than a limit allows.

    Attributes:
        reason: the message without the fix and the full stop.
        limit: name of the argument that sets the limit, ``"max_pixels"`` or ``"max_bytes"``.
    """

    def __init__(self, reason: str, limit: str) -> None:
        self.reason, self.limit = reason, limit
        super().__init__(f"{reason}: reduce its size, or raise {limit} (here, or in open_image).")

    def __reduce__(self) -> tuple:
        return type(self), (self.reason, self.limit)


class WeightsError(PartzooError):
    """Raised if a weights file is missing, damaged, or does not fit its model."""


class MissingExtraError(PartzooError, ImportError):
    """Raised if an optional library is not installed."""


def counted(number: int, what: str) -> str:
    """Return a number and what it counts: ``"1 image"``, ``"1,000 images"``, ``"2 classes"`` or ``"3 entries"``."""
    if number == 1:
        return f"1 {what}"
    if what.endswith("ry"):
        return f"{number:,} {what[:-1]}ies"
    return f"{number:,} {what}{'es' if what.endswith(('s', 'ch')) else 's'}"


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: import name, for example ``"pycocotools.mask"``.
        extra: the extra of partzoo that installs it, for example ``"coco"``.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the module is not installed; the message gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'{module.partition(".")[0]} is not installed: pip install "partzoo[{extra}]".'
        ) from error
