"""Multichannel signals such as EEG: how to read and preprocess them, and synthetic recordings."""

from partzoo.signals.edf import read_edf
from partzoo.signals.preparing import end_to_end, filtered, normalized, to_windows, window_starts
from partzoo.signals.synthetic import Sleeper, write_nights

__all__ = [
    "Sleeper",
    "end_to_end",
    "filtered",
    "normalized",
    "read_edf",
    "to_windows",
    "window_starts",
    "write_nights",
]
