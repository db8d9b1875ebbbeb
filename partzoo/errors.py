"""The errors that partzoo raises. Each message is one clear sentence with the value, then the fix."""

from __future__ import annotations

import importlib
from types import ModuleType


class PartzooError(Exception):
    """Base of every error that partzoo raises on purpose."""


class UsageError(PartzooError, ValueError):
    """An argument is wrong, for example out of range or unknown; the command line exits with status 2."""


class UnknownModelError(UsageError):
    """No architecture, tag or alias has this name."""


class ShapeError(UsageError):
    """A tensor has a shape that the function does not accept."""


class ImageError(PartzooError):
    """An image cannot be read, or it is too large to be read safely."""


class TooLargeError(ImageError):
    """An image has more pixels or bytes than a limit allows.

    Attributes:
        reason: the sentence without a fix and without a full stop.
        limit: name of the argument that sets the limit, ``"max_pixels"`` or ``"max_bytes"``.
    """

    def __init__(self, reason: str, limit: str) -> None:
        self.reason, self.limit = reason, limit
        super().__init__(f"{reason}: reduce its size, or raise {limit} (here, or in open_image).")

    def __reduce__(self) -> tuple:
        return type(self), (self.reason, self.limit)


class WeightsError(PartzooError):
    """A weights file is missing, damaged, or does not fit its model."""


class MissingExtraError(PartzooError, ImportError):
    """An optional library is not installed."""


def counted(number: int, what: str) -> str:
    """A number and what it counts, as in ``"1 image"``, ``"1,000 images"`` , ``"2 classes"`` or ``"3 entries"``."""
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
