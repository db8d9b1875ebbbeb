"""Preprocess signals: band-pass filter, resample, cut into windows and normalize.

Values that are NaN, infinite, or masked are missing samples. They do not affect others: each stretch between them is
filtered separately, and no window spans them.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 8.1, "1D time series classification".
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from fractions import Fraction
from numbers import Real

import numpy as np

from partzoo.errors import ShapeError, UsageError, require

BAND = (0.1, 30.0)
RATE = 100
SECONDS = 30
# A channel of a window is silent below this share of the deviation of its louder windows, whatever the unit. The share
# is below any electrode's noise, and above what a filter leaves of a signal a minute after its end.
SILENT = 5e-5
CONSTANT = 1e-12  # a channel that varies by less than this share of its level is constant
LOUDER = 0.9  # quantile of the deviations over windows, so that artefacts in under a tenth of them have no influence


def to_windows(signal: np.ndarray, rate: float, *, channels: Sequence[str] = ()) -> np.ndarray:
    """Preprocess a recording for ``part-vit1d``: filter, resample to 100 Hz, cut into windows of 30 s, normalize.

    The result does not depend on the unit. Windows restart after missing samples, and a warning
    states this, since the windows are then not 30 s apart; :func:`window_starts` of the :func:`filtered` signal returns
    their times.

    Args:
        signal: ``(C, T)``; NaN, infinite and masked values are missing samples.
        rate: samples per second.
        channels: names of the channels, for messages; without names, messages number them from 0.

    Returns:
        ``(n, C, 3000)`` float32, consecutive windows; an incomplete last window is dropped.

    Raises:
        UsageError: the signal is shorter than one window, or so many samples are missing that no window is left.
    """
    kept = filtered(signal, rate)
    windows = whole_windows(kept, channels)
    if not np.isfinite(kept).all():
        warnings.warn(
            f"{_missing(kept, channels)}: windows restart after missing samples, and are not all {SECONDS} s apart.",
            stacklevel=2,
        )
    return windows


def whole_windows(signal: np.ndarray, channels: Sequence[str] = ()) -> np.ndarray:
    """Cut a filtered signal ``(C, T)`` at 100 Hz into normalized 30 s windows ``(n, C, 3000)`` without missing samples.

    Args:
        signal: a signal returned by :func:`filtered`.
        channels: names of the channels, for the message.

    Raises:
        UsageError: the signal is shorter than one window, or so many samples are missing that no window is left.
    """
    windows = end_to_end(signal, SECONDS * RATE)
    check_left(windows, signal, channels)
    return normalized(windows)


def check_left(windows: np.ndarray, signal: np.ndarray, channels: Sequence[str] = ()) -> None:
    """Refuse a filtered signal ``(C, T)`` at 100 Hz that is shorter than a window, or has none without missing samples.

    Raises:
        UsageError: no window is left; the message states the length, or names the channel and the time.
    """
    if signal.shape[1] < SECONDS * RATE:
        raise UsageError(
            f"The recording lasts {signal.shape[1] / RATE:g} s, less than one window of {SECONDS} s. Leave it out."
        )
    if not len(windows) and not np.isfinite(signal).all():
        raise UsageError(
            f"{_missing(signal, channels)}, and no window of {SECONDS} s without missing samples is left. Leave out "
            "the channel or the recording."
        )


def filtered(signal: np.ndarray, rate: float, *, band: tuple[float, float] = BAND, target: int = RATE) -> np.ndarray:
    """Apply a band-pass filter (Butterworth of order 4, forwards and backwards) to a signal and resample it.

    Stretches between missing samples are filtered separately; stretches shorter than a second are left out.

    Args:
        signal: ``(C, T)``; NaN, infinite and masked values are missing samples.
        rate: samples per second.
        band: lowest and highest frequency of the pass band, in Hz.
        target: samples per second of the result.

    Returns:
        ``(C, T')`` float32, NaN where samples are missing.

    Raises:
        ShapeError: the signal does not have this shape, or it is shorter than a second.
        UsageError: the rate is not a number or is too low for the band, or the signal is complex.
        MissingExtraError: scipy is not installed.
    """
    if not isinstance(rate, Real):
        raise UsageError(f"rate={rate!r} is not a number of samples per second.")
    if np.iscomplexobj(signal):
        raise UsageError("The signal is complex: pass its real or imaginary part, or its magnitude.")
    if not 2 * band[1] < rate < math.inf:
        raise UsageError(
            f"rate={rate:g} must exceed {2 * band[1]:g} samples per second, for frequencies up to {band[1]:g} Hz."
        )
    if np.ndim(signal) != 2 or np.shape(signal)[1] < rate:
        raise ShapeError(
            f"The signal has shape {np.shape(signal)}: it must be (channels, samples) and at least one second long."
        )
    scipy = require("scipy.signal", "eeg")
    ratio = Fraction(target) / Fraction(rate).limit_denominator(1000)
    filters = scipy.butter(4, band, "bandpass", fs=rate, output="sos")
    found = []
    for channel in signal:
        values = np.ma.filled(np.ma.asanyarray(channel).astype(np.float64), np.nan)
        stretches = _stretches(np.isfinite(values), math.ceil(rate))
        kept = np.zeros_like(values)
        for start, end in stretches:
            stretch = values[start:end]
            if np.ptp(stretch) > CONSTANT * np.abs(stretch).max():  # filtering a constant would leave rounding errors
                kept[start:end] = scipy.sosfiltfilt(filters, stretch)
        resampled = scipy.resample_poly(kept, ratio.numerator, ratio.denominator).astype(np.float32)
        for start, end in _between(stretches, len(values)):
            resampled[math.floor(start * ratio) : math.ceil(end * ratio)] = np.nan
        found.append(resampled)
    return np.stack(found)


def end_to_end(signal: np.ndarray, length: int) -> np.ndarray:
    """Cut a signal ``(C, T)`` into the windows ``(n, C, length)`` at :func:`window_starts`."""
    places = window_starts(signal, length)[:, None] + np.arange(length)
    return signal[:, places].swapaxes(0, 1)


def window_starts(signal: np.ndarray, length: int) -> np.ndarray:
    """Return the start indices ``(n,)`` int64 of consecutive windows of a signal ``(C, T)`` that lack no sample.

    Windows follow each other, and restart after missing samples (NaN or infinite). Samples left over before them and at
    the end are dropped.
    """
    stretches = _stretches(np.isfinite(signal).all(0), length)
    starts = [np.arange(start, end - length + 1, length) for start, end in stretches]
    return np.concatenate([np.zeros(0, np.int64), *starts])


def normalized(windows: np.ndarray) -> np.ndarray:
    """Normalize each channel of each window ``(n, C, T)`` to mean 0, standard deviation 1; silent channels become 0.

    A channel is silent if it does not vary, or has less than ``SILENT`` of the deviation of its louder windows.

    Raises:
        UsageError: a value is NaN or infinite.
    """
    check_finite(windows)
    if not len(windows):
        return windows
    means = windows.mean(-1, keepdims=True)
    centred = windows - means
    deviations = centred.std(-1, keepdims=True)
    rounding = 8 * np.finfo(centred.dtype).eps * np.abs(means)
    limits = np.maximum(SILENT * np.quantile(deviations, LOUDER, axis=0, keepdims=True), rounding)
    return np.divide(centred, deviations, out=np.zeros_like(centred), where=deviations > limits)


def check_finite(windows: np.ndarray) -> None:
    """Refuse windows ``(n, C, T)`` that contain a value that is NaN or infinite.

    Raises:
        UsageError: there is such a value; the message names the window and the channel.
    """
    found = np.argwhere(~np.isfinite(windows))
    if len(found):
        window, channel, sample = found[0]
        raise UsageError(
            f"Window {window} has a value that is NaN or infinite in channel {channel}, at sample {sample}: leave such "
            "windows out, as partzoo.signals.to_windows does."
        )


def _stretches(present: np.ndarray, least: int) -> list[tuple[int, int]]:
    """Return the start and end of each run of at least ``least`` samples without a missing one, from ``(T,)``."""
    edges = np.flatnonzero(np.diff(present.astype(np.int8), prepend=np.int8(0), append=np.int8(0))).reshape(-1, 2)
    return [(int(start), int(end)) for start, end in edges[edges[:, 1] - edges[:, 0] >= least]]


def _between(stretches: Sequence[tuple[int, int]], samples: int) -> list[tuple[int, int]]:
    """Return the start and end of each gap before, between and after stretches."""
    starts, ends = [start for start, _ in stretches], [end for _, end in stretches]
    return [(start, end) for start, end in zip([0, *ends], [*starts, samples], strict=True) if start < end]


def _missing(signal: np.ndarray, channels: Sequence[str]) -> str:
    """Describe the channel of a filtered signal ``(C, T)`` at 100 Hz that lacks the most samples, and its first gap."""
    gone = ~np.isfinite(signal)
    worst = int(gone.sum(1).argmax())
    start, end = _stretches(gone[worst], 1)[0]
    name = channels[worst] if channels else worst
    return f"Channel {name} misses samples (NaN, infinite, or a gap) from {start / RATE:g} s to {end / RATE:g} s"
