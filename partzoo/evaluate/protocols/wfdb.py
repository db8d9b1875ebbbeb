"""Headers and annotations of PhysioNet's WFDB format, as far as the challenge of 2018 uses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from partzoo.errors import UsageError

_SKIP, _NUM, _SUB, _CHN, _AUX = range(59, 64)
_DEFAULT_GAIN = 200.0


@dataclass(frozen=True)
class Header:
    """The contents of a ``.hea`` file: physical value = (stored value - baseline) / gain.

    Attributes:
        rate: samples per second.
        names: names of the signals.
        gains: stored units per physical unit.
        baselines: stored values of physical 0.
    """

    rate: float
    names: tuple[str, ...]
    gains: tuple[float, ...]
    baselines: tuple[float, ...]


def read_header(file: str | Path) -> Header:
    """Read a record's header.

    Raises:
        UsageError: it is not one.

    Source: WFDB Applications Guide, header(5).
    """
    file = Path(file)
    try:
        lines = [line.split() for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
        count = int(lines[0][1])
        rate = float(lines[0][2].partition("/")[0].partition("(")[0])
        rows = [_signal(line) for line in lines[1 : count + 1]]
    except (UnicodeDecodeError, IndexError, ValueError) as error:
        raise UsageError(f"{file} is not a WFDB header ({error}): download it again.") from error
    if len(rows) != count or not rate > 0:
        raise UsageError(f"{file} is not a whole WFDB header: {len(rows)} of {count} signals, rate {rate:g}.")
    return Header(rate, *zip(*rows, strict=True))


def _signal(fields: list[str]) -> tuple[str, float, float]:
    """Name, gain and baseline of a line: file, format, gain(baseline)/units, bits, zero, first, sum, block, name."""
    gain, _, baseline = fields[2].partition("/")[0].rstrip(")").partition("(")
    return " ".join(fields[8:]), float(gain) or _DEFAULT_GAIN, float(baseline or fields[4])


def read_annotations(file: str | Path) -> list[tuple[int, str]]:
    """Time in samples and text of every annotation, in the order of the file.

    Raises:
        UsageError: the file breaks off.

    Source: WFDB Applications Guide, annot(5), MIT format.
    """
    stored = Path(file).read_bytes()
    found: list[tuple[int, str]] = []
    time = place = 0
    while True:
        if len(stored) < place + 2:
            raise UsageError(f"{file} breaks off before its end mark: download it again.")
        word = int.from_bytes(stored[place : place + 2], "little")
        code, value = word >> 10, word & 1023
        place += 2
        if code == value == 0:
            return found
        if code == _SKIP:
            # A long integer of the PDP-11: the high half first.
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
            found.append((time, ""))
