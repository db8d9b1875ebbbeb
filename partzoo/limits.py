"""Limits for files and addresses from strangers, and the environment variables that change these limits.

This module imports only the errors, so that the command line can show the limits at once.
"""

from __future__ import annotations

import os
from typing import Any

from partzoo.errors import UsageError


def _count(name: str, default: int) -> int:
    """Read a whole number of at least 1 from an environment variable."""
    text = os.environ.get(name) or str(default)
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 19 or int(text) < 1:
        raise UsageError(f"The environment variable {name} is {text!r:.60}: set it to a whole number of at least 1.")
    return int(text)


MAX_PIXELS = _count("PARTZOO_MAX_PIXELS", 178_956_970)  # Pillow's own default for raising an error
MAX_BYTES = _count("PARTZOO_MAX_BYTES", 512 * 2**20)  # size of an uncompressed image with that many pixels
MAX_SIZE = 4096  # longer side at working size, in pixels: there an encoder needs a few gigabytes
MAX_PARTS = 1000  # scores of all parts are held for strips of an image
MAX_SEED = 2**63 - 1  # the largest that generators of random numbers take
MAX_ITEMS = 100_000  # entries of a list in a configuration
MAX_MEMBERS = 2_000_000  # members of an archive: ImageNet has 1.3 million images
MAX_UNPACKED = 2**38  # bytes of all members of an archive together
SMALL_UNPACKED = 2**28
MAX_RATIO = 100  # largest ratio of the members' bytes to the archive's, if they have more than SMALL_UNPACKED

SCHEMES = ("http", "https")

_SIDE = (1, 2**16)
_CHANNELS = (1, 2**14)
_DEPTH = (0, 256)
_HEADS = (1, 1024)
_COUNT = (0, 100_000)
_SCALE = (0.01, 16.0)
_ANY = (-1e6, 1e6)

# The lowest and highest value of every number in a model's configuration, by the field's name. Scales of widths and
# depths are floats, and numbers of channels and blocks are integers, under the same names.
RANGES: dict[str, tuple[float, float]] = {
    "size": _SIDE, "image_size": (1, MAX_SIZE), "mirror_size": (1, MAX_SIZE), "reconstruction": (1, MAX_SIZE),
    "restored": (1, MAX_SIZE), "patch": _SIDE, "patch_size": _SIDE, "stride": _SIDE, "window": _COUNT,
    "dim": _CHANNELS, "width": _CHANNELS, "masked_width": _CHANNELS, "widths": _CHANNELS, "pyramid": _CHANNELS,
    "hidden": _CHANNELS, "channels": _CHANNELS,
    "depth": _DEPTH, "masked_depth": _DEPTH, "decoder_depth": _DEPTH, "depths": _DEPTH,
    "heads": _HEADS, "masked_heads": _HEADS, "decoder_heads": _HEADS,
    "parts": (1, MAX_PARTS), "classes": _COUNT, "patches": (1, 100_000), "targets": (2, 4),
    "stage": (-256, 256), "levels": (-256, 256),
    "tau": _ANY, "mean": _ANY, "std": (1e-6, 1e6), "drop_path": (0, 1),
}  # fmt: skip


def check_range(name: str, value: Any) -> None:
    """Check every number in a value of a model's configuration against :data:`RANGES`.

    Args:
        name: name of the field.
        value: a value of the field's type; other values than numbers are not checked, and in a list every entry is.

    Raises:
        UsageError: a number is out of range, or a list is too long; the message gives the range.
    """
    if isinstance(value, (tuple, list)):
        if len(value) > MAX_ITEMS:
            raise UsageError(f"{name} has {len(value):,} entries: {MAX_ITEMS:,} are the most.")
        for each in value:
            check_range(name, each)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = _SCALE if isinstance(value, float) and name in ("width", "depth") else RANGES[name]
        if not low <= value <= high:
            raise UsageError(f"{name}={value} is out of range: it must be {low:,} to {high:,}.")


def check_seed(seed: int) -> None:
    """Check a random seed.

    Raises:
        UsageError: it is below 0 or above :data:`MAX_SEED`.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed={seed} is out of range: it must be 0 to {MAX_SEED:,}.")


def check_size(size: int) -> None:
    """Check the longer side of an image at working size, in pixels.

    Raises:
        UsageError: the size is below 1 or above :data:`MAX_SIZE`.
    """
    if size < 1:
        raise UsageError(f"size={size} must be at least 1 pixel.")
    if size > MAX_SIZE:
        raise UsageError(f"size={size} exceeds {MAX_SIZE:,} pixels, the limit: use a smaller size.")


def check_parts(k: int | str) -> None:
    """Check a number of parts; ``"auto"`` is always allowed.

    Raises:
        UsageError: the number is above :data:`MAX_PARTS`.
    """
    if isinstance(k, int) and k > MAX_PARTS:
        raise UsageError(f"k={k} exceeds {MAX_PARTS:,} parts, the limit: use fewer.")


def schemes() -> frozenset[str]:
    """Return the schemes that addresses may have: PARTZOO_URL_SCHEMES, by default http and https; "none" allows none.

    Raises:
        UsageError: the variable holds another scheme.
    """
    chosen = _words("PARTZOO_URL_SCHEMES") or frozenset(SCHEMES)
    if unknown := chosen - {*SCHEMES, "none"}:
        raise UsageError(
            f"PARTZOO_URL_SCHEMES holds {min(unknown)!r:.40}: set it to 'http', 'https', 'http,https' or 'none'."
        )
    return chosen


def hosts() -> frozenset[str]:
    """Return the hosts that may be connected to: PARTZOO_URL_HOSTS, ``{"any"}`` by default.

    ``"public"`` allows all addresses except private, loopback, link-local and reserved ones. A host that is listed by
    name is allowed at any address, even a private one.
    """
    return _words("PARTZOO_URL_HOSTS") or frozenset({"any"})


def formats() -> frozenset[str]:
    """Return Pillow's names, in lower case, of the image formats that may be read: PARTZOO_FORMATS; empty allows all.

    EPS is never read, since it is a program, which Pillow passes to Ghostscript.
    """
    return _words("PARTZOO_FORMATS")


def _words(name: str) -> frozenset[str]:
    """Read words separated by commas from an environment variable."""
    return frozenset(word.strip().lower() for word in os.environ.get(name, "").split(",") if word.strip())
