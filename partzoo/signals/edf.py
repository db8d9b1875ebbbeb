"""Reading recordings in EDF and EDF+."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from partzoo.errors import UsageError, require


def read_edf(file: str | Path, channels: Sequence[str]) -> tuple[np.ndarray, float]:
    """Read channels of a recording.

    Args:
        file: an ``.edf`` file.
        channels: names of the channels, in upper or lower case, in the order of the result. If their rates differ, all
            are resampled to the highest.

    Returns:
        The signal, ``(C, T)`` float64 in microvolts, and its rate in samples per second.

    Raises:
        UsageError: the file cannot be read, or lacks a channel.
        MissingExtraError: mne is not installed.
    """
    mne = require("mne", "eeg")
    try:
        raw = mne.io.read_raw_edf(file, preload=False, verbose="error")
    except Exception as error:
        raise UsageError(f"{file} cannot be read as EDF: {error}") from error
    known = {name.lower(): name for name in raw.ch_names}
    for name in channels:
        if name.lower() not in known:
            raise UsageError(
                f"{file} has no channel {name}: it has {', '.join(raw.ch_names)}. Choose with data.channels."
            )
    wanted = [known[name.lower()] for name in channels]
    return 1e6 * raw.get_data(picks=wanted), float(raw.info["sfreq"])
