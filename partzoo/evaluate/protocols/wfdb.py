"""Read those parts of PhysioNet's WFDB headers and annotations that the challenge of 2018 uses."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from partzoo.errors import UsageError
from partzoo.files import reading

_SKIP, _NUM, _SUB, _CHN, _AUX = range(59, 64)
_DEFAULT_GAIN, _DEFAULT_UNIT = 200.0, "mV"
# The stored value that means "no value", the lowest of each format.
_NO_VALUE = {"16": -(1 << 15), "24": -(1 << 23), "32": -(1 << 31), "80": -(1 << 7), "212": -(1 << 11)}


@dataclass(frozen=True)
class Header:
    """The contents of a ``.hea`` file: ``physical value = (stored value - baseline) / gain``.

    Attributes:
        rate: samples per second.
        names: names of the signals.
        gains: number of stored units per physical unit.
        baselines: stored values that mean physical 0.
        units: physical units, as written in the file.
        no_values: stored values that mean a missing sample; None if the format has none.
        samples: number of samples of each signal; 0 if the header does not state it.
    """

    rate: float
    names: tuple[str, ...]
    gains: tuple[float, ...]
    baselines: tuple[float, ...]
    units: tuple[str, ...]
    no_values: tuple[int | None, ...]
    samples: int


def read_header(file: str | Path) -> Header:
    """Read a record's header.

    Raises:
        UsageError: the file is not a header.

    Source: WFDB Applications Guide, header(5).
    """
    file = Path(file)
    with reading(file, UsageError, "is not a WFDB header"):
        numbered = enumerate(_lines(file), start=1)
        lines = [(number, line.split()) for number, line in numbered if line.strip() and not line.startswith("#")]
        first = lines[0][1]
        count = int(first[1])
        rate = float(first[2].partition("/")[0].partition("(")[0])
        samples = int(first[3]) if len(first) > 3 else 0
        rows = [_signal(line) for _, line in lines[1 : count + 1]]
    if samples < 0:
        raise UsageError(f"{file}, line {lines[0][0]}: the number of samples is {samples}, below 0: correct the file.")
    for (number, _), (name, gain, baseline, *_) in zip(lines[1:], rows, strict=False):
        if not (math.isfinite(gain) and math.isfinite(baseline)):
            raise UsageError(
                f"{file}, line {number}: gain {gain:g} and baseline {baseline:g} of {name} must be finite: correct the "
                "file."
            )
    if not rows or len(rows) != count or not 0 < rate < math.inf:
        raise UsageError(f"{file} is not a complete WFDB header: {len(rows)} of {count} signals, rate {rate:g}.")
    names, gains, baselines, units, no_values = zip(*rows, strict=True)
    return Header(rate, names, gains, baselines, units, no_values, samples)


def _lines(file: Path) -> list[str]:
    """Read the lines of a UTF-8 (with or without a byte order mark) or Latin-1 text, with any line ends."""
    stored = file.read_bytes()
    try:
        text = stored.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = stored.decode("latin-1")
    return re.split(r"\r\n|\r|\n", text)


def _signal(fields: list[str]) -> tuple[str, float, float, str, int | None]:
    """Parse a signal line: file, format, gain(baseline)/unit, bits, zero, first, sum, block, name.

    Returns:
        The name, the gain, the baseline, the unit, and the stored value that means "no value".
    """
    scale, _, unit = fields[2].partition("/")
    gain, _, baseline = scale.rstrip(")").partition("(")
    form = re.match(r"\d*", fields[1])
    no_value = _NO_VALUE.get(form[0] if form else "")
    return (
        " ".join(fields[8:]),
        float(gain) or _DEFAULT_GAIN,
        float(baseline or fields[4]),
        unit or _DEFAULT_UNIT,
        no_value,
    )


def read_annotations(file: str | Path) -> list[tuple[int, str]]:
    """Read the time (in samples) and the text of every annotation, in file order, which is chronological.

    Raises:
        UsageError: the file is truncated, or a time is negative or earlier than the previous annotation's.

    Source: WFDB Applications Guide, annot(5), MIT format.
    """
    with reading(file, UsageError):
        stored = Path(file).read_bytes()
    found: list[tuple[int, str]] = []
    time = place = 0
    while True:
        if len(stored) < place + 2:
            raise UsageError(f"{file} ends before its end mark: download it again.")
        word = int.from_bytes(stored[place : place + 2], "little")
        code, value = word >> 10, word & 1023
        place += 2
        if code == value == 0:
            return found
        if code == _SKIP:
            # A PDP-11 long integer, high half first.
            high, low = stored[place : place + 2], stored[place + 2 : place + 4]
            time += int.from_bytes(low + high, "little", signed=True)
            place += 4
        elif code == _AUX:
            if found:
                text = stored[place : place + value].rstrip(b"\0").decode("latin1")
                found[-1] = found[-1][0], text
            place += value + value % 2
        elif code not in (_NUM, _SUB, _CHN):
            time += value
            _check_time(file, len(found) + 1, time, found[-1][0] if found else 0)
            found.append((time, ""))


def _check_time(file: str | Path, number: int, time: int, before: int) -> None:
    if time < 0:
        reason = "before the beginning"
    elif time < before:
        reason = f"before the one before it (sample {before})"
    else:
        return
    raise UsageError(f"{file}: annotation {number} is at sample {time}, {reason}: correct the file or leave it out.")
