"""Preprocessing of signals: band pass, resampling, windows and normalization.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 8.1, "1D time series classification".
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from partzoo.errors import ShapeError, UsageError, require

BAND = (0.1, 30.0)
RATE = 100
SECONDS = 30
FLAT = 1e-3  # a channel with a smaller standard deviation, in microvolts, counts as silent


def to_windows(signal: np.ndarray, rate: float) -> np.ndarray:
    """Preprocess a recording for ``part-vit1d``: filter, resample to 100 Hz, cut into windows of 30 s, normalize.

    Args:
        signal: ``(C, T)``, in microvolts.
        rate: samples per second.

    Returns:
        ``(n, C, 3000)`` float32, consecutive windows; an incomplete last window is dropped.
    """
    return normalized(end_to_end(filtered(signal, rate), SECONDS * RATE))


def filtered(signal: np.ndarray, rate: float, *, band: tuple[float, float] = BAND, target: int = RATE) -> np.ndarray:
    """Filter a signal by a band pass (Butterworth of order 4, forwards and backwards) and resample it.

    Args:
        signal: ``(C, T)``.
        rate: samples per second.
        band: lowest and highest frequency of the pass band, in Hz.
        target: samples per second of the result.

    Returns:
        ``(C, T')`` float32.

    Raises:
        ShapeError: the signal does not have this shape, or it is shorter than a second.
        UsageError: the rate is too low for the band.
        MissingExtraError: scipy is not installed.
    """
    if np.ndim(signal) != 2 or np.shape(signal)[1] < rate:
        raise ShapeError(
            f"The signal has shape {np.shape(signal)}: it must be (channels, samples) and at least one second long."
        )
    if rate <= 2 * band[1]:
        raise UsageError(
            f"rate={rate:g} must exceed {2 * band[1]:g} samples per second, for frequencies up to {band[1]:g} Hz."
        )
    scipy = require("scipy.signal", "eeg")
    ratio = Fraction(target) / Fraction(rate).limit_denominator(1000)
    filters = scipy.butter(4, band, "bandpass", fs=rate, output="sos")
    kept = [scipy.sosfiltfilt(filters, np.asarray(channel, np.float64)) for channel in signal]
    return np.stack(
        [scipy.resample_poly(channel, ratio.numerator, ratio.denominator).astype(np.float32) for channel in kept]
    )


def end_to_end(signal: np.ndarray, length: int) -> np.ndarray:
    """Cut a signal ``(C, T)`` into consecutive windows ``(n, C, length)``; an incomplete last window is dropped."""
    count = signal.shape[1] // length
    return signal[:, : count * length].reshape(len(signal), count, length).swapaxes(0, 1)


def normalized(windows: np.ndarray) -> np.ndarray:
    """Normalize each channel of each window ``(n, C, T)`` to mean 0 and deviation 1; silent channels become 0."""
    centred = windows - windows.mean(-1, keepdims=True)
    return centred / np.maximum(centred.std(-1, keepdims=True), FLAT)
