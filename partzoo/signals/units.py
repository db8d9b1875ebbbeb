"""Read units of voltage in the headers of recordings."""

from __future__ import annotations

import re
import unicodedata

# "u" and "æ" can mean the micro sign: on keyboards without it, and where code page 437 is read as Latin-1.
_PREFIXES = {
    "": 1e6,
    **dict.fromkeys(("m", "milli"), 1e3),
    **dict.fromkeys(("u", "μ", "æ", "micro"), 1.0),
    **dict.fromkeys(("n", "nano"), 1e-3),
    **dict.fromkeys(("p", "pico"), 1e-6),
}
_VOLTAGE = re.compile(r"(.*?)\s*v(?:olts?)?")


def microvolts(unit: str) -> float | None:
    """Return the number of microvolts in a unit, or None if the text is not a known unit of voltage.

    Capitals are read as lower-case letters (``"UV"`` is a microvolt), except in ``"MV"``, which might be a megavolt.
    """
    text = unicodedata.normalize("NFKC", unit.strip())  # maps the micro sign to the Greek letter
    found = _VOLTAGE.fullmatch(text.casefold())
    if found is None or (found[1] == "m" and text.startswith("M")):
        return None
    return _PREFIXES.get(found[1])
