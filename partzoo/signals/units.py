"""Units of voltage, as headers of recordings write them."""

from __future__ import annotations

import re
import unicodedata

# "u" and "æ" stand for the micro sign: where there is none on the keyboard, and as code page 437 reads in Latin-1.
_PREFIXES = {
    "": 1e6,
    **dict.fromkeys(("m", "milli"), 1e3),
    **dict.fromkeys(("u", "μ", "æ", "micro"), 1.0),
    **dict.fromkeys(("n", "nano"), 1e-3),
    **dict.fromkeys(("p", "pico"), 1e-6),
}
_VOLTAGE = re.compile(r"(.*?)\s*v(?:olts?)?")


def microvolts(unit: str) -> float | None:
    """Microvolts in one unit, or None where the text is no known unit of voltage.

    Capitals are read as small letters (``"UV"`` is a microvolt), except in ``"MV"``, which might be a megavolt.
    """
    text = unicodedata.normalize("NFKC", unit.strip())  # the micro sign becomes the Greek letter
    found = _VOLTAGE.fullmatch(text.casefold())
    if found is None or (found[1] == "m" and text.startswith("M")):
        return None
    return _PREFIXES.get(found[1])
