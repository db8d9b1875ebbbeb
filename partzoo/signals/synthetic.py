"""Generate synthetic recordings of sleep, for testing code that is made for real ones.

No person's data is used. Sleep stages follow a Markov chain, and each has its textbook rhythms: wake has alpha at
the back of the head, blinks and muscle activity; N1 theta and slow eye movements; N2 theta, spindles and K-complexes;
N3 delta; REM mixed low theta, sawtooth waves and rapid eye movements, without muscle tone. Every 45 to 90 s there is a
turn, for example an arousal or the closing of the eyes, after which rhythms fade or build up; this gives time a
direction. Frequencies, amplitudes, rates of events and restlessness differ between sleepers. Figures measured on these
signals show whether training works, not how well it works on recordings of people.

Sources: the rhythms, and an arousal as an abrupt shift to faster ones, are from the scoring rules of the American
Academy of Sleep Medicine, as in textbooks; the file layout is taken from the PhysioNet challenge of 2018, which
:mod:`partzoo.evaluate.protocols.physionet` reads. The time constants of the turns are invented.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from partzoo.errors import UsageError, require

STAGES = ("W", "N1", "N2", "N3", "R")
EEG = ("F3-M2", "F4-M1", "C3-M2", "C4-M1", "O1-M2", "O2-M1")
CHANNELS = (*EEG, "E1-M2", "Chin1-Chin2")
SECONDS = 30
GAIN = 50.0  # number of stored units per microvolt
# Probabilities of a transition from a row's stage to a column's, every 30 s.
TRANSITIONS = np.array(
    [
        [0.86, 0.12, 0.01, 0.00, 0.01],
        [0.10, 0.55, 0.32, 0.00, 0.03],
        [0.02, 0.05, 0.82, 0.09, 0.02],
        [0.01, 0.01, 0.10, 0.88, 0.00],
        [0.02, 0.06, 0.04, 0.00, 0.88],
    ]
)
# Mean frequency and its standard deviation between sleepers, in Hz; amplitude in microvolts for each stage; weight at
# the front, middle and back of the head.
RHYTHMS = {
    "alpha": ((10.0, 0.8), (28, 9, 3, 1, 5), (0.35, 0.5, 1.0)),
    "theta": ((5.8, 0.6), (5, 18, 12, 8, 14), (0.7, 1.0, 0.6)),
    "delta": ((1.3, 0.25), (3, 6, 14, 62, 5), (1.0, 0.8, 0.5)),
    "beta": ((20.0, 1.5), (8, 4, 2, 1, 4), (1.0, 0.8, 0.6)),
    "sawtooth": ((2.8, 0.3), (0, 0, 0, 0, 9), (0.8, 1.0, 0.3)),
    "arousal": ((9.0, 0.8), (0, 5, 7, 9, 6), (0.8, 1.0, 1.0)),
}
# Mean number of events in 30 s for each stage; weight at the front, middle and back of the head.
EVENTS = {
    "spindle": ((0, 0, 3.0, 0.6, 0), (0.7, 1.0, 0.4)),
    "k-complex": ((0, 0, 1.3, 0.3, 0), (1.0, 0.8, 0.4)),
    "blink": ((5.0, 0.5, 0, 0, 0.2), (0.8, 0.25, 0.05)),
    "slow eye movement": ((0.5, 4.0, 0, 0, 0), (0.35, 0.1, 0.0)),
    "rapid eye movement": ((1.0, 0, 0, 0, 6.0), (0.4, 0.12, 0.02)),
}
MUSCLE = (14.0, 7.0, 4.0, 3.0, 1.0)
# Range of the time between turns in seconds: closing of the eyes, an arousal, a phasic burst of REM. After a turn, a
# rhythm or the rate of an event fades (below 0) or builds up (above 0) with this time constant in seconds, for each
# stage; 0 is constant.
TURNS = (45.0, 90.0)
COURSES = {
    "alpha": (-15, -15, 0, 0, 0),
    "theta": (15, 20, 20, -20, 20),
    "delta": (0, 0, -15, 30, 0),
    "beta": (20, -10, -10, -10, -10),
    "sawtooth": (0, 0, 0, 0, -12),
    "arousal": (0, -10, -10, -10, -10),
    "spindle": (0, 0, 20, 20, 0),
    "k-complex": (0, 0, -10, -10, 0),
    "blink": (20, 0, 0, 0, 0),
    "slow eye movement": (0, 20, 0, 0, 0),
    "rapid eye movement": (0, 0, 0, 0, -15),
}
REST = 0.05  # level of a course that has faded, relative to its peak


@dataclass(frozen=True)
class Sleeper:
    """A synthetic sleeper; ``Sleeper(seed)`` is the same on every machine.

    Attributes:
        seed: random seed of the sleeper and the recording.
        rate: samples per second of the recording.
    """

    seed: int
    rate: int = 100
    _person: dict[str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 0])
        person = {name: max(rng.normal(*frequency), 0.4) for name, (frequency, _, _) in RHYTHMS.items()}
        person |= {f"{name} amplitude": rng.lognormal(0, 0.35) for name in (*RHYTHMS, *EVENTS, "muscle", "noise")}
        person |= {f"{name} density": rng.lognormal(0, 0.35) for name in EVENTS}
        person |= {"spindle": rng.normal(13.2, 0.7), "slope": rng.normal(1.1, 0.2), "restless": rng.lognormal(0, 0.35)}
        object.__setattr__(self, "_person", person)

    def hypnogram(self, windows: int) -> np.ndarray:
        """Draw sleep stages ``(windows,)`` int64, indices of ``STAGES``, one for every 30 s."""
        rng = np.random.default_rng([self.seed, 1])
        stay = np.eye(len(STAGES))
        chain = stay + np.clip(self._person["restless"], 0.4, 2.0) * (TRANSITIONS - stay)
        found = [rng.choice(len(STAGES), p=np.linalg.matrix_power(TRANSITIONS, 200)[0])]
        for _ in range(windows - 1):
            found.append(rng.choice(len(STAGES), p=chain[found[-1]]))
        return np.array(found, np.int64)

    def night(self, windows: int) -> tuple[np.ndarray, np.ndarray]:
        """Generate an excerpt of a night.

        Args:
            windows: number of windows of 30 s.

        Returns:
            The signal, ``(8, T)`` float32 in microvolts, in the order of ``CHANNELS`` (six of EEG, one of eye
            movements, one of the chin muscle), and the stages ``(windows,)`` int64.

        Raises:
            UsageError: ``windows`` is below 1.
        """
        if windows < 1:
            raise UsageError(f"windows={windows} must be at least 1.")
        rng = np.random.default_rng([self.seed, 2])
        stages = self.hypnogram(windows)
        samples = windows * SECONDS * self.rate
        head = np.stack([self._noise(rng, samples, self._person["slope"]) for _ in range(len(EEG))])
        head *= 7 * self._person["noise amplitude"]
        head += 5 * self._person["noise amplitude"] * self._noise(rng, samples, self._person["slope"])
        eyes, chin = 5 * self._noise(rng, samples, 1.0), np.zeros(samples)
        since = self._since_turns(rng, samples)
        for name, (_, levels, places) in RHYTHMS.items():
            level = self._track(np.array(levels), stages) * self._person[f"{name} amplitude"]
            level *= self._course(COURSES[name], stages, since)
            for side in range(2):  # the two hemispheres have equal amplitudes but independent phases
                head[side::2] += np.outer(places, level * self._rhythm(rng, samples, self._person[name], name))
        for name, (often, places) in EVENTS.items():
            likely = self._course(COURSES[name], stages, since).reshape(windows, -1)
            wave = self._events(rng, stages, np.array(often), likely, name)
            head += np.repeat(places, 2)[:, None] * wave
            if "eye" in name or name == "blink":
                eyes += wave
        muscle = self._track(np.array(MUSCLE), stages) * self._person["muscle amplitude"]
        chin += muscle * rng.standard_normal(samples)
        head += 0.25 * muscle * rng.standard_normal((len(EEG), samples))
        return np.vstack([head, eyes, chin]).astype(np.float32), stages

    def _track(self, levels: np.ndarray, stages: np.ndarray) -> np.ndarray:
        """Compute the level of each stage as a function of time, with transitions of two seconds."""
        each = np.repeat(levels[stages].astype(np.float64), SECONDS * self.rate)
        width = 2 * self.rate
        total = np.cumsum(np.pad(each, (width // 2 + 1, width - width // 2 - 1), mode="edge"))
        return (total[width:] - total[:-width]) / width

    def _noise(self, rng: np.random.Generator, samples: int, slope: float) -> np.ndarray:
        """Draw noise of standard deviation 1 whose power is proportional to frequency to the power of ``-slope``."""
        frequencies = np.fft.rfftfreq(samples, 1 / self.rate)
        shaped = np.fft.rfft(rng.standard_normal(samples)) / np.maximum(frequencies, 0.2) ** (slope / 2)
        shaped[0] = 0
        found = np.fft.irfft(shaped, samples)
        return found / found.std()

    def _rhythm(self, rng: np.random.Generator, samples: int, frequency: float, name: str) -> np.ndarray:
        """Draw an oscillation with randomly varying phase and amplitude; sawtooth waves rise slowly and fall fast."""
        wander = 2 * np.pi * frequency / self.rate + 0.35 * np.sqrt(frequency / self.rate) * rng.standard_normal(
            samples
        )
        phase = np.cumsum(wander) + rng.uniform(0, 2 * np.pi)
        wave = np.sin(phase) if name != "sawtooth" else np.sin(phase) + 0.5 * np.sin(2 * phase)
        strength = np.interp(
            np.arange(samples), np.arange(-self.rate, samples + 2 * self.rate, self.rate),
            rng.gamma(2.5, 0.4, samples // self.rate + 3 + (samples % self.rate > 0)),
        )  # fmt: skip
        return wave * strength

    def _since_turns(self, rng: np.random.Generator, samples: int) -> np.ndarray:
        """Draw turns, and return the seconds since the last turn for each sample."""
        t = np.arange(samples) / self.rate
        turns = rng.uniform(-TURNS[1], 0) + np.cumsum(rng.uniform(*TURNS, int((t[-1] + 2 * TURNS[1]) / TURNS[0]) + 1))
        turns = np.concatenate([[turns[0] - TURNS[1]], turns])
        return t - turns[np.searchsorted(turns, t, "right") - 1]

    def _course(self, constants: tuple[float, ...], stages: np.ndarray, since: np.ndarray) -> np.ndarray:
        """Compute at each sample a factor for a rhythm or an event rate, whose mean over the 30 s after a turn is 1."""
        tau = np.repeat(np.array(constants, np.float64)[stages], SECONDS * self.rate)
        steady, lasting = tau == 0, np.where(tau == 0, 1, np.abs(tau))
        decay, mean = np.exp(-since / lasting), lasting / SECONDS * (1 - np.exp(-SECONDS / lasting))
        course = np.where(tau < 0, (REST + decay) / (REST + mean), (REST + 1 - decay) / (REST + 1 - mean))
        return np.where(steady, 1.0, course)

    def _events(
        self, rng: np.random.Generator, stages: np.ndarray, often: np.ndarray, likely: np.ndarray, name: str
    ) -> np.ndarray:
        wave = np.zeros(len(stages) * SECONDS * self.rate)
        reached = np.cumsum(likely, 1) / likely.sum(1, keepdims=True)
        for window, stage in enumerate(stages):
            for _ in range(rng.poisson(often[stage] * self._person[f"{name} density"])):
                shape = self._shape(rng, name) * self._person[f"{name} amplitude"]
                start = window * SECONDS * self.rate + int(np.searchsorted(reached[window], rng.random()))
                shape = shape[: len(wave) - start]
                wave[start : start + len(shape)] += shape
        return wave

    def _shape(self, rng: np.random.Generator, name: str) -> np.ndarray:
        """Draw the shape of one event, in microvolts."""
        lasting = {"spindle": (0.5, 1.5), "k-complex": (0.6, 1.1), "blink": (0.2, 0.4)}
        seconds = rng.uniform(*lasting.get(name, (1.5, 3.0) if name.startswith("slow") else (0.6, 1.2)))
        t = np.arange(int(seconds * self.rate)) / self.rate
        hump = np.sin(np.pi * t / seconds)
        if name == "spindle":
            return 32 * hump**2 * np.sin(2 * np.pi * self._person["spindle"] * t)
        if name == "k-complex":
            negative, positive = (np.exp(-((t / seconds - at) ** 2) / 0.012) for at in (0.28, 0.68))
            return 75 * positive - 120 * negative
        if name == "blink":
            return 110 * hump**2
        side = rng.choice([-1, 1])
        if name.startswith("slow"):
            return side * 70 * np.sin(2 * np.pi * t / seconds)
        return side * 85 * np.minimum(t / 0.05, 1) * np.exp(-t / 0.35)


def write_nights(
    folder: str | Path,
    sleepers: int,
    *,
    windows: int = 120,
    rate: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write synthetic recordings in the layout of the PhysioNet challenge of 2018.

    Args:
        folder: folder to write to; its files are ``training/sy00-0000/sy00-0000.hea``, ``.mat`` and ``.arousal``, etc.
        sleepers: number of sleepers, each with one recording.
        windows: length of each recording, in windows of 30 s.
        rate: samples per second.
        seed: random seed of all sleepers.
        progress: function that is called with the number of recordings written and the total.

    Returns:
        The folder.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    save = require("scipy.io", "eeg").savemat
    folder = Path(folder)
    for number in range(sleepers):
        name = f"sy{seed:02}-{number:04}"
        record = folder / "training" / name
        record.mkdir(parents=True, exist_ok=True)
        signal, stages = Sleeper(seed * 1_000_000 + number, rate).night(windows)
        stored = np.clip(np.rint(signal * GAIN), -32767, 32767).astype(np.int16)  # -32768 means "no value"
        save(record / f"{name}.mat", {"val": stored}, format="4")
        lines = [f"{name} {len(CHANNELS)} {rate} {signal.shape[1]}"]
        lines += [
            f"{name}.mat 16+24 {GAIN:g}/uV 16 0 {row[0]} 0 0 {channel}"
            for channel, row in zip(CHANNELS, stored, strict=True)
        ]
        (record / f"{name}.hea").write_text("\n".join([*lines, "# made up by partzoo.signals.synthetic", ""]))
        marks = [(i * SECONDS * rate, STAGES[stage]) for i, stage in enumerate(stages)]
        (record / f"{name}.arousal").write_bytes(_annotations(marks))
        if progress:
            progress(number + 1, sleepers)
    return folder


def _annotations(marks: list[tuple[int, str]]) -> bytes:
    """Encode annotations (times in samples, and texts) in PhysioNet's MIT format; every time step becomes a skip.

    Source: WFDB Applications Guide, annot(5).
    """
    skip, note, text_code = 59, 22, 63
    stored, last = b"", 0
    for time, text in marks:
        high, low = divmod(time - last, 1 << 16)
        words = [skip << 10, high, low, note << 10, text_code << 10 | len(text)]
        stored += b"".join(word.to_bytes(2, "little") for word in words) + text.encode() + b"\0" * (len(text) % 2)
        last = time
    return stored + b"\0\0"
