"""Band pass, resampling, windows and their normalization.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 8.1, "1D time series classification".
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from partzoo.errors import ShapeError, UsageError, require

BAND = (0.1, 30.0)
RATE = 100
SECONDS = 30
FLAT = 1e-3  # a channel whose deviation is below it, in microvolts, is silent


def to_windows(signal: np.ndarray, rate: float) -> np.ndarray:
    """A recording as what ``part-vit1d`` takes: filtered, resampled to 100 Hz, cut into windows of 30 s, normalized.

    Args:
        signal: ``(C, T)``, in microvolts.
        rate: samples per second.

    Returns:
        ``(n, C, 3000)`` float32, end to end; what is left at the end is dropped.
    """
    return normalized(end_to_end(filtered(signal, rate), SECONDS * RATE))


def filtered(signal: np.ndarray, rate: float, *, band: tuple[float, float] = BAND, target: int = RATE) -> np.ndarray:
    """A band of frequencies of a signal (Butterworth of order 4, forwards and backwards), resampled.

    Args:
        signal: ``(C, T)``.
        rate: samples per second.
        band: lowest and highest frequency that is kept, in Hz.
        target: samples per second afterwards.

    Returns:
        ``(C, T')`` float32.

    Raises:
        ShapeError: the signal is not of this shape, or shorter than a second.
        UsageError: the rate is too low for the band.
        MissingExtraError: scipy is not installed.
    """
    if np.ndim(signal) != 2 or np.shape(signal)[1] < rate:
        raise ShapeError(f"A signal is (channels, samples) and at least a second long, not {np.shape(signal)}.")
    if rate <= 2 * band[1]:
        raise UsageError(
            f"rate={rate:g}: frequencies up to {band[1]:g} Hz need more than {2 * band[1]:g} samples a second."
        )
    scipy = require("scipy.signal", "eeg")
    ratio = Fraction(target) / Fraction(rate).limit_denominator(1000)
    filters = scipy.butter(4, band, "bandpass", fs=rate, output="sos")
    kept = [scipy.sosfiltfilt(filters, np.asarray(channel, np.float64)) for channel in signal]
    return np.stack(
        [scipy.resample_poly(channel, ratio.numerator, ratio.denominator).astype(np.float32) for channel in kept]
    )


def end_to_end(signal: np.ndarray, length: int) -> np.ndarray:
    """Windows ``(n, C, length)`` of a signal ``(C, T)`` that lie end to end; a rest that fills none is dropped."""
    count = signal.shape[1] // length
    return signal[:, : count * length].reshape(len(signal), count, length).swapaxes(0, 1)


def normalized(windows: np.ndarray) -> np.ndarray:
    """Windows ``(n, C, T)`` with mean 0 and deviation 1 in each channel of each; silent channels are 0."""
    centred = windows - windows.mean(-1, keepdims=True)
    return centred / np.maximum(centred.std(-1, keepdims=True), FLAT)
