"""Writing EDF and EDF+ by the format's specification, with the deviations that real files have."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

NOTE_BYTES = 120  # of annotations in a record


def cells(values, width: int) -> bytes:
    """Pad the fields of a header to their widths; text is encoded as ASCII, and bytes are used unchanged."""
    stored = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return b"".join(value[:width].ljust(width) for value in stored)


def write_edf(
    file: Path,
    names: Sequence,
    signals: Sequence,
    rates: int | Sequence[int] = 100,
    *,
    units="uV",
    ranges: Sequence[tuple] | tuple = (-3276.8, 3276.7),
    kind: str = "",
    onsets: Sequence[str] | None = None,
    note: bytes = b"",
    records: int | None = None,
) -> Path:
    """Write an EDF file with records of one second.

    Args:
        file: the file.
        names: labels of the signals.
        signals: one array for each, stored in tenths of the unit.
        rates: samples per second, one for all or one for each.
        units: a text for all, or one for each.
        ranges: physical minimum and maximum of all, or one pair for each.
        kind: ``"EDF+C"`` or ``"EDF+D"`` add a signal of annotations.
        onsets: onset of each record, as written in the file; by default records follow each other.
        note: bytes of an annotation in each record.
        records: their number as the header states it; the true one where it is None.
    """
    n, notes = len(names), int(bool(kind))
    rates = [rates] * n if isinstance(rates, int) else rates
    units = [units] * n if isinstance(units, str | bytes) else units
    ranges = [ranges] * n if not isinstance(ranges[0], tuple) else ranges
    count = len(signals[0]) // rates[0] if n else 1
    head = cells(["0"], 8) + cells(["X X X X", "Startdate 01-JAN-2020 X X X"], 80)
    head += cells(["01.01.20", "22.00.00", 256 * (n + notes + 1)], 8) + cells([kind], 44)
    head += cells([count if records is None else records, int(n > 0)], 8) + cells([n + notes], 4)
    head += cells([*names, *["EDF Annotations"] * notes], 16) + cells([""] * (n + notes), 80)
    head += cells([*units, *[""] * notes], 8)
    head += cells([*(low for low, _ in ranges), *[-1] * notes], 8)
    head += cells([*(high for _, high in ranges), *[1] * notes], 8)
    head += cells([-32768] * (n + notes), 8) + cells([32767] * (n + notes), 8) + cells([""] * (n + notes), 80)
    head += cells([*rates, *[NOTE_BYTES // 2] * notes], 8) + cells([""] * (n + notes), 32)
    stored = [np.rint(np.asarray(signal) * 10).astype("<i2") for signal in signals]
    body = b""
    for i in range(count):
        body += b"".join(
            signal[i * rate : (i + 1) * rate].tobytes() for signal, rate in zip(stored, rates, strict=True)
        )
        if kind:
            onset = (onsets[i] if onsets else f"+{i}").encode()
            text = onset + b"\x14\x14\0" if onset else b""
            text += b"+0\x1530\x14" + note + b"\x14\0" if note else b""
            body += text.ljust(NOTE_BYTES, b"\0")
    file.write_bytes(head + body)
    return file
