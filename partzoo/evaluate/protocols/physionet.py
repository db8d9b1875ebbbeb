"""``physionet-2018``: a sleep-stage protocol on six EEG channels, from the challenge "You Snooze You Win".

The challenge's folder is ``training/<record>/<record>.hea`` (the header), ``.mat`` (the signals) and ``.arousal``
(the annotations, of sleep stages among others); a record is one night of one subject.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from partzoo.data.reading import need, read_mat
from partzoo.errors import ShapeError, UsageError, counted
from partzoo.evaluate.metrics import Contingency
from partzoo.evaluate.protocols.wfdb import Header, read_annotations, read_header
from partzoo.files import reading
from partzoo.signals.preparing import BAND, RATE, SECONDS, check_left, filtered, normalized, whole_windows
from partzoo.signals.units import microvolts

STAGES = ("W", "N1", "N2", "N3", "R")
UNDEFINED = "U"
CHANNELS = ("F3-M2", "F4-M1", "C3-M2", "C4-M1", "O1-M2", "O2-M1")


@dataclass(frozen=True, eq=False)
class Night:
    """One record: a night of one subject.

    Attributes:
        record: name of the record.
        windows: ``(n, 6, 3000)`` float32, filtered, resampled and normalized.
        stages: ``(n,)`` int64, numbers in ``STAGES``.
    """

    record: str
    windows: np.ndarray
    stages: np.ndarray


@dataclass(frozen=True)
class SignalProtocol:
    """A protocol that classifies windows of a signal into stages.

    Attributes:
        name: name for ``partzoo.evaluate.protocols.get``.
        source: paper and section that defines the rules.
        rules: the same rules in a few sentences, for the docs.
        get: instructions for the download, and the expected layout of the folder.
        band: lowest and highest frequency to keep, in Hz.
        rate: number of samples per second after resampling.
        seconds: length of a window in seconds.
        train_subjects: number of subjects to finetune on.
        test_subjects: number of held-out subjects.
    """

    name: str
    source: str
    rules: str
    get: str
    band: tuple[float, float] = BAND
    rate: int = RATE
    seconds: int = SECONDS
    train_subjects: int = 10
    test_subjects: int = 200

    def records(self, data: str | Path, split: str, *, seed: int = 0) -> list[Path]:
        """Return the folders of the records in ``split``: ``"train"``, ``"test"``, or ``"rest"`` for all others.

        The test subjects are the same for every seed: the first ``test_subjects`` subjects in a fixed order. The
        training subjects are drawn at random from the others, with ``seed``.

        Raises:
            UsageError: the split is unknown, or the folder has too few records.
        """
        if split not in ("train", "test", "rest"):
            raise UsageError(f"Unknown split {split!r} of {self.name}; the splits are train, test, rest.")
        folder = need(self.name, data, ["training"], self.get) / "training"
        found = sorted(header.parent for header in folder.glob("*/*.hea"))
        least = self.test_subjects + self.train_subjects
        if len(found) < least:
            raise UsageError(f"{self.name} needs {counted(least, 'record')}, and {folder} has {len(found)}. {self.get}")
        order = np.random.default_rng(0).permutation(len(found))
        if split == "test":
            return [found[i] for i in order[: self.test_subjects]]
        others = np.random.default_rng(seed).permutation(order[self.test_subjects :])
        chosen = others[: self.train_subjects] if split == "train" else others[self.train_subjects :]
        return [found[i] for i in chosen]

    def load(self, data: str | Path, split: str, *, seed: int = 0) -> Iterator[Night]:
        """Yield the nights of ``split``, read one at a time; see :meth:`records` and :meth:`read`."""
        return map(self.read, self.records(data, split, seed=seed))

    def unlabelled(self, data: str | Path) -> list[Path]:
        """Return the records to pretrain on: all except those of test subjects, and the challenge's ``test`` folder.

        Raises:
            UsageError: the folder has no more records than the held-out ones.
        """
        folder = need(self.name, data, ["training"], self.get)
        found = sorted(header.parent for header in (folder / "training").glob("*/*.hea"))
        order = np.random.default_rng(0).permutation(len(found))
        kept = [found[i] for i in sorted(order[self.test_subjects :])]
        if not kept:
            raise UsageError(
                f"{folder / 'training'} has {counted(len(found), 'record')}, all of the "
                f"{self.test_subjects} that are held out. {self.get}"
            )
        return kept + sorted(header.parent for header in (folder / "test").glob("*/*.hea"))

    def read(self, record: Path) -> Night:
        """Read one night: filtered (Butterworth of order 4, forwards and backwards), resampled, cut and normalized.

        A stage lasts from its annotation to the next one, and the last stage for one window. Windows in a stage are
        contiguous; those that are incomplete, undefined, beyond the signal or with gaps are left out. Each channel of a
        window is normalized to mean 0 and standard deviation 1.

        Raises:
            UsageError: a file is missing or damaged, a channel is missing, or every window lacks samples.
            MissingExtraError: scipy is not installed.
        """
        need(self.name, record, [f"{record.name}.arousal"], self.get)
        signal, rate = self._signal(record)
        starts, stages = self._windows(record / f"{record.name}.arousal", rate, signal.shape[1])
        windows = signal[:, starts[:, None] + np.arange(self.seconds * self.rate)].swapaxes(0, 1)
        whole = np.isfinite(windows).all((1, 2))
        with _named(record):
            check_left(windows[whole], signal, CHANNELS)
        return Night(record.name, normalized(windows[whole]), stages[whole])

    def read_unlabelled(self, record: Path) -> np.ndarray:
        """Read a night as consecutive windows ``(n, 6, 3000)``, which restart after missing samples.

        Signals are filtered, resampled and normalized as in :meth:`read`.
        """
        signal, _ = self._signal(record)
        with _named(record):
            return whole_windows(signal, CHANNELS)

    def _signal(self, record: Path) -> tuple[np.ndarray, float]:
        """Read the six channels, filtered and resampled, and the rate at which they were recorded."""
        name = record.name
        need(self.name, record, [f"{name}{ending}" for ending in (".hea", ".mat")], self.get)
        header = read_header(record / f"{name}.hea")
        missing = [channel for channel in CHANNELS if channel not in header.names]
        if missing:
            raise UsageError(f"{record / name}.hea has no channel {missing[0]}: it has {', '.join(header.names)}.")
        physical = _physical(record / f"{name}.mat", header)
        with _named(record):
            return filtered(physical, header.rate, band=self.band, target=self.rate), header.rate

    def _windows(self, file: Path, rate: float, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first sample, after resampling, and the stage of every window."""
        known = (*STAGES, UNDEFINED)
        marks = [(time / rate, known.index(text)) for time, text in read_annotations(file) if text in known]
        if not marks:
            raise UsageError(f"{file} has no sleep stages. {self.get}")
        ends = [start for start, _ in marks[1:]] + [marks[-1][0] + self.seconds]
        last = samples / self.rate  # beyond it, a stage may last for years
        found = [
            (round((start + i * self.seconds) * self.rate), stage)
            for (start, stage), end in zip(marks, ends, strict=True)
            if stage < len(STAGES)
            for i in range(int((min(end, last) - start) / self.seconds + 1e-6))
        ]
        fitting = [pair for pair in found if pair[0] + self.seconds * self.rate <= samples]
        starts, stages = np.array(fitting, np.int64).reshape(-1, 2).T
        return starts, stages

    def evaluate(self, predict: Callable[[np.ndarray], np.ndarray], data: str | Path) -> dict[str, float]:
        """Compute :meth:`score` over the test subjects of the challenge's folder."""
        return self.score(predict, self.load(data, "test"))

    def score(self, predict: Callable[[np.ndarray], np.ndarray], nights: Iterable[Night]) -> dict[str, float]:
        """Compute ``accuracy`` in per cent and Cohen's ``kappa`` (-1..1), pooled over all windows of some nights.

        Args:
            predict: function from windows ``(n, 6, 3000)`` float32 to ``(n,)`` numbers in ``STAGES``.
            nights: nights of the test subjects.

        Raises:
            UsageError: the data is missing, or a prediction is not a stage.
            ShapeError: ``predict`` returned an array of the wrong shape.
        """
        table = Contingency(len(STAGES), len(STAGES))
        for night in nights:
            predicted = np.asarray(predict(night.windows))
            if predicted.shape != night.stages.shape:
                raise ShapeError(f"predict must return {night.stages.shape}, not {predicted.shape}.")
            table.update(night.stages, predicted)
        return {
            "accuracy": float(100 * np.trace(table.counts) / table.counts.sum()),
            "kappa": float(table.kappa()),
        }


@contextlib.contextmanager
def _named(record: Path) -> Iterator[None]:
    """Prefix the messages of usage errors with the record's name."""
    try:
        yield
    except UsageError as error:
        raise type(error)(f"{record}: {error}") from error


def _physical(file: Path, header: Header) -> np.ndarray:
    """Read the six channels ``(6, T)`` in microvolts, NaN where a sample is missing."""
    with reading(file, UsageError):
        stored = np.atleast_2d(read_mat(file, "val", extra="eeg"))
        if stored.dtype.kind not in "iuf" or stored.ndim != 2:
            raise ValueError(f"'val' is {stored.dtype} {stored.shape}")
    if len(stored) != len(header.names):
        raise UsageError(
            f"{file} holds {len(stored)} signals, and its header {len(header.names)}: download both again."
        )
    if header.samples and stored.shape[1] != header.samples:
        warnings.warn(
            f"{file} is truncated: its header states {header.samples} samples, but it holds {stored.shape[1]}.",
            stacklevel=2,
        )
    chosen = list(map(header.names.index, CHANNELS))
    units = {header.units[i]: microvolts(header.units[i]) for i in chosen}
    if unknown := [unit for unit, factor in units.items() if factor is None]:
        warnings.warn(
            f"{file.with_suffix('.hea')} states the unit {unknown[0]!r}: this unit of voltage is unknown, and the "
            "values are taken as microvolts.",
            stacklevel=2,
        )
    found = stored[chosen].astype(np.float64)
    for values, i in zip(found, chosen, strict=True):
        if header.no_values[i] is not None:
            values[values == header.no_values[i]] = np.nan
        values -= header.baselines[i]
        values *= (units[header.units[i]] or 1.0) / header.gains[i]
    return found


PHYSIONET_2018 = SignalProtocol(
    name="physionet-2018",
    source="PART, sections 5.2 and 8.1; Ghassemi et al., 'You Snooze, You Win', Computing in Cardiology 2018",
    rules=(
        "The signal has six EEG channels (F3-M2, F4-M1, C3-M2, C4-M1, O1-M2, O2-M1), is band-pass filtered to 0.1-30 "
        "Hz, resampled to 100 Hz and cut into windows of 30 s. Each channel of a window is normalized. There are five "
        "stages (W, N1, N2, N3, R), and windows with an undefined stage are left out. 200 subjects are for the test, "
        "and 10 of the other subjects for finetuning. Accuracy and Cohen's kappa are taken over all windows of the "
        "test subjects."
    ),
    get=(
        "Download the training set of https://physionet.org/content/challenge-2018/1.0.0/ and give the folder with "
        "training/<record>/<record>.hea, .mat and .arousal (--data DIR)."
    ),
)
