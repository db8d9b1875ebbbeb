"""The errors that partzoo raises. Each message states the problem with the value found, and how to fix it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType

LONGEST_CAUSE = 200  # characters of another library's message that one of ours repeats


class PartzooError(Exception):
    """Base class of all errors that partzoo raises deliberately; each message is one line of printable characters."""

    def __str__(self) -> str:
        return one_line(super().__str__())


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


def one_line(text: str) -> str:
    """Escape the characters that break a line or steer a terminal, such as newlines and marks of direction."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def cause_of(error: BaseException) -> str:
    """Describe an error of any library in a few words without a full stop, for the brackets of a sentence."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".")
    if isinstance(error, PartzooError):
        return text
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if "allow_pickle" in text:  # NumPy's advice, which would run a stranger's code
        return "it holds pickled objects, which are never loaded"
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    return f"{text[:LONGEST_CAUSE]}..." if len(text) > LONGEST_CAUSE else text or type(error).__name__


@contextlib.contextmanager
def restated(name: str, restate: Callable[[Exception], PartzooError]) -> Iterator[None]:
    """Turn any error of a block that reads something into one of ours; ours that say its name already pass through.

    Damaged or hostile bytes make libraries raise errors of any type, so that no list of types is ever complete.

    Args:
        name: name of what is read, which every message must give.
        restate: function from the error to the one to raise.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except Exception as error:
        if isinstance(error, PartzooError) and one_line(name) in str(error):
            raise
        raise restate(error) from error


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
