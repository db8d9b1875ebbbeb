"""Read recordings in EDF and EDF+.

Source: the specifications of EDF (https://www.edfplus.info/specs/edf.html) and EDF+ (edfplus.html).
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from partzoo.errors import UsageError, counted, require
from partzoo.files import expand_user, reading
from partzoo.signals.units import microvolts

_HEAD = 256  # number of bytes of the header's first part, and of its part for each signal
# Widths in bytes of the header's fields for each signal, in the order in which they are stored.
_FIELDS = {
    "label": 16,
    "sensor": 80,
    "unit": 8,
    "physical minimum": 8,
    "physical maximum": 8,
    "stored minimum": 8,
    "stored maximum": 8,
    "filter": 80,
    "samples": 8,
    "reserved": 32,
}
_LIMITS = ("physical minimum", "physical maximum", "stored minimum", "stored maximum")
_NOTES = "edf annotations"
_ONSET = re.compile(rb"([+-]?\d+(?:[.,]\d*)?)(?:\x15[^\x14]*)?\x14")
_ROUNDING = 1.1e-3  # seconds; onsets are often rounded to milliseconds
_LONGEST = 86_400  # largest total length of gaps in seconds, since gaps take memory like a signal


@dataclass(frozen=True)
class EdfSignal:
    """One signal of an EDF file.

    Attributes:
        name: label of the signal; labels that occur more than once are numbered, ``EEG-0``, ``EEG-1``.
        unit: unit of the physical values, as written in the file.
        limits: physical and stored minimum and maximum, as written in the file.
        place: range of its samples within a record.
    """

    name: str
    unit: str
    limits: tuple[str, ...]
    place: slice

    @property
    def samples(self) -> int:
        """Number of samples in a record."""
        return self.place.stop - self.place.start


@dataclass(frozen=True)
class EdfHeader:
    """The contents of an EDF file's header.

    Attributes:
        kind: ``"EDF+C"``, ``"EDF+D"`` (with gaps between records), or another text for plain EDF.
        records: number of records, or -1 if the recorder did not finish the file.
        seconds: length of a record in seconds.
        signals: all signals except annotations; empty for a file of annotations only, such as a hypnogram of Sleep-EDF.
        notes: first annotation signal, which holds the onset of each record.
        start: offset of the records in bytes.
        width: number of samples in a record, over all signals and annotations.
    """

    kind: str
    records: int
    seconds: float
    signals: tuple[EdfSignal, ...]
    notes: EdfSignal | None
    start: int
    width: int


def read_edf(file: str | Path, channels: Sequence[str]) -> tuple[np.ndarray, float]:
    """Read channels of a recording as microvolts.

    A warning states if a recording is truncated, if a channel's unit is unknown (its values are then taken as
    microvolts), and if a channel has no range to scale it by (its stored values are then used unchanged).

    Args:
        file: an ``.edf`` file.
        channels: exact names of the channels, in the order of the result. If their rates differ, all are resampled to
            the highest rate; other channels of the file have no influence.

    Returns:
        The signal, ``(C, T)`` float64 in microvolts, NaN in the gaps of EDF+D, and its rate in samples per second.

    Raises:
        UsageError: the file cannot be read, or lacks a channel.
        MissingExtraError: the rates differ, and scipy is not installed.
    """
    file = expand_user(file)
    header = read_edf_header(file)
    chosen = _chosen(file, header, channels)
    most = max(signal.samples for signal in chosen)
    if not header.seconds > 0 or min(signal.samples for signal in chosen) < 1:
        raise UsageError(f"{file} cannot be read as EDF: its records of {header.seconds:g} s hold no samples.")
    _warn_of_scales(file, chosen)
    stored, rate = _records(file, header), most / header.seconds
    runs = _runs(file, header, stored, rate)
    found = np.full((len(chosen), runs[-1][0] + (runs[-1][2] - runs[-1][1]) * most), np.nan)
    for row, signal in zip(found, chosen, strict=True):
        gain, offset = _scale(file, signal)
        for start, first, end in runs:
            values = gain * stored[first:end, signal.place].ravel() + offset
            row[start : start + (end - first) * most] = _upsampled(values, signal.samples, most)
    return found, rate


def read_edf_header(file: str | Path) -> EdfHeader:
    """Read the header of a file.

    Raises:
        UsageError: the file cannot be read, or is not EDF.
    """
    with reading(file, UsageError, "cannot be read as EDF"):
        with open(file, "rb") as opened:
            head = opened.read(_HEAD)
            if head[1:8] == b"BIOSEMI":
                raise ValueError("it is BDF, with samples of 24 bits; export it as EDF")
            count = _count(_text(head[252:256]))
            table = opened.read(_HEAD * count)
        if not count or len(table) < _HEAD * count:
            raise ValueError("it ends within its header")
        columns = _columns(table, count)
        signals = _signals(columns)
        notes = [label.casefold() == _NOTES for label in columns["label"]]
        return EdfHeader(
            kind=_text(head[192:236])[:5].upper(),
            records=-1 if (records := _text(head[236:244])) == "-1" else _count(records),
            seconds=_number(_text(head[244:252])),
            signals=tuple(signal for signal, note in zip(signals, notes, strict=True) if not note),
            notes=next((signal for signal, note in zip(signals, notes, strict=True) if note), None),
            start=_HEAD * (count + 1),
            width=signals[-1].place.stop,
        )


def _text(field: bytes) -> str:
    """Decode a field of the header; it should be ASCII, but is often Latin-1, and sometimes UTF-8."""
    try:
        return field.decode().strip("\0 \t\r\n")
    except UnicodeDecodeError:
        return field.decode("latin-1").strip("\0 \t\r\n")


def _count(text: str) -> int:
    """Parse a field of the header that holds a count."""
    if not re.fullmatch("[0-9]+", text):
        raise ValueError(f"its header states {text!r} where a count belongs")
    return int(text)


def _number(text: str) -> float:
    """Parse a field of the header that holds a number; some writers use a decimal comma."""
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"its header states {text!r} where a number belongs")
    return number


def _columns(table: bytes, count: int) -> dict[str, list[str]]:
    """Split the header's table of signals into its fields."""
    found, at = {}, 0
    for field, width in _FIELDS.items():
        found[field] = [_text(table[at + i * width : at + (i + 1) * width]) for i in range(count)]
        at += count * width
    return found


def _signals(columns: dict[str, list[str]]) -> list[EdfSignal]:
    """Return all signals in the order of the file, including annotations."""
    found: list[EdfSignal] = []
    limits = zip(*(columns[field] for field in _LIMITS), strict=True)
    rows = zip(_numbered(columns["label"]), columns["unit"], limits, map(_count, columns["samples"]), strict=True)
    for name, unit, limit, samples in rows:
        start = found[-1].place.stop if found else 0
        found.append(EdfSignal(name, unit, limit, slice(start, start + samples)))
    return found


def _numbered(labels: Sequence[str]) -> list[str]:
    """Number the labels that occur more than once."""
    many, seen = Counter(labels), Counter[str]()
    names = []
    for label in labels:
        names.append(f"{label}-{seen[label]}" if many[label] > 1 else label)
        seen[label] += 1
    return names


def _chosen(file: Path, header: EdfHeader, channels: Sequence[str]) -> list[EdfSignal]:
    if not header.signals:
        raise UsageError(f"{file} holds only annotations, without any signal: pass the recording beside it.")
    if not channels:
        raise UsageError("channels is empty: name at least one channel with data.channels.")
    known = {signal.name: signal for signal in header.signals}
    for name in channels:
        if name not in known:
            alike = [other for other in known if other.casefold() == name.casefold()]
            fix = f"Did you mean {alike[0]}?" if alike else "Choose with data.channels."
            raise UsageError(f"{file} has no channel {name}: it has {', '.join(known)}. {fix}")
    return [known[name] for name in channels]


def _limits(file: Path, signal: EdfSignal) -> tuple[float, ...]:
    """Parse the physical and stored minimum and maximum of a signal."""
    try:
        return tuple(_number(text) for text in signal.limits)
    except ValueError as error:
        raise UsageError(f"{file} cannot be read as EDF: for the range of channel {signal.name}, {error}.") from error


def _has_range(file: Path, signal: EdfSignal) -> bool:
    low, high, least, most = _limits(file, signal)
    return low != high and least != most


def _scale(file: Path, signal: EdfSignal) -> tuple[float, float]:
    """Return gain and offset: ``microvolts = gain * stored + offset``."""
    if not _has_range(file, signal):
        return 1.0, 0.0
    low, high, least, most = _limits(file, signal)
    known = microvolts(signal.unit)
    factor = 1.0 if known is None else known
    gain = (high - low) / (most - least)
    return factor * gain, factor * (low - gain * least)


def _warn_of_scales(file: Path, signals: Sequence[EdfSignal]) -> None:
    unscaled = [signal.name for signal in signals if not _has_range(file, signal)]
    if unscaled:
        warnings.warn(
            f"{file} states no range for {', '.join(unscaled)} (its physical or stored minimum equals the maximum): "
            "the stored values are used unchanged, and their unit is unknown.",
            stacklevel=3,
        )
    unknown = [signal for signal in signals if microvolts(signal.unit) is None and signal.name not in unscaled]
    if unknown:
        units = ", ".join(f"{signal.name} in {signal.unit!r}" for signal in unknown)
        warnings.warn(
            f"{file} states {units}: this unit of voltage is unknown, and the values are taken as microvolts.",
            stacklevel=3,
        )


def _records(file: Path, header: EdfHeader) -> np.ndarray:
    """Memory-map the stored values ``(records, width)`` int16 of all complete records."""
    whole, rest = divmod(max(os.path.getsize(file) - header.start, 0), 2 * header.width) if header.width else (0, 0)
    if not whole:
        raise UsageError(f"{file} cannot be read as EDF: it ends within its first record; download it again.")
    if rest or whole != header.records:
        warnings.warn(
            f"{file} is truncated or unfinished: its header states {counted(header.records, 'record')}, but it holds "
            f"{whole} whole ones{' and a part of one' if rest else ''}. The whole records are read.",
            stacklevel=3,
        )
    return np.memmap(file, "<i2", "r", header.start, (whole, header.width))


def _runs(file: Path, header: EdfHeader, stored: np.ndarray, rate: float) -> list[tuple[int, int, int]]:
    """Group records without gaps between them; return each group's first sample, first record and end record.

    Raises:
        UsageError: the onsets of EDF+D are missing or not in order, or the gaps are too long.
    """
    least = max(0.5 / rate, _ROUNDING)
    onsets = _onsets(file, header, stored, least)
    late = np.diff(onsets) - header.seconds
    breaks = np.flatnonzero(late > least) + 1
    if late[breaks - 1].sum() > _LONGEST:
        raise UsageError(
            f"{file} has gaps of {late[breaks - 1].sum() / 3600:.0f} hours in all, but at most 24 are read: split it "
            "into several files."
        )
    if len(breaks) and header.kind != "EDF+D":
        warnings.warn(
            f"{file} is not EDF+D, but states a gap of {late[breaks[0] - 1]:g} s after "
            f"{breaks[0] * header.seconds:g} s. It is read with its gaps.",
            stacklevel=4,
        )
    most = round(rate * header.seconds)
    found, end = [], -1
    for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(stored)], strict=True):
        start = max(round((onsets[first] - onsets[0]) * rate), end + 1)  # a gap is at least one sample
        end = start + (last - first) * most
        found.append((start, first, last))
    return found


def _onsets(file: Path, header: EdfHeader, stored: np.ndarray, least: float) -> np.ndarray:
    """Return the onset of each record in seconds, in order.

    EDF+D must state them. Other files have no gaps by definition, so onsets that are missing or out of order are
    a mistake of the writer, and records follow each other.
    """
    found = _stated_onsets(header, stored)
    early = np.diff(found, prepend=found[0] - header.seconds) < header.seconds - least
    wrong = np.flatnonzero(np.isnan(found) | early)
    if not len(wrong):
        return found
    if header.kind == "EDF+D":
        raise UsageError(
            f"{file} is EDF+D, and its record {wrong[0] + 1} of {len(found)} states no onset after the end of the one "
            "before, so that its gaps are unknown. Export it again."
        )
    return np.arange(len(stored)) * header.seconds


def _stated_onsets(header: EdfHeader, stored: np.ndarray) -> np.ndarray:
    """Return the stated onset of each record in seconds, NaN if there is none; other annotations are ignored."""
    found = np.full(len(stored), np.nan)
    if header.notes is not None:
        for i, record in enumerate(stored[:, header.notes.place]):
            if onset := _ONSET.match(record.tobytes()):
                found[i] = float(onset[1].replace(b",", b"."))
    return found


def _upsampled(values: np.ndarray, samples: int, most: int) -> np.ndarray:
    """Upsample each record of a channel from ``samples`` to ``most`` values, the highest rate of the channels."""
    if samples == most:
        return values
    return require("scipy.signal", "eeg").resample_poly(values, most, samples, padtype="line")
