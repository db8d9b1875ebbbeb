import numpy as np
import pytest

from partzoo.errors import UsageError
from partzoo.evaluate.protocols.physionet import PHYSIONET_2018
from partzoo.evaluate.protocols.physionet import STAGES as READ
from partzoo.signals import Sleeper, end_to_end, write_nights
from partzoo.signals.synthetic import CHANNELS, COURSES, EEG, EVENTS, RHYTHMS, SECONDS, STAGES, TRANSITIONS, TURNS

pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def power():
    """Microvolts of a band in the windows of each stage, over some sleepers."""
    nights = [Sleeper(seed).night(40) for seed in range(6)]
    windows = np.concatenate([end_to_end(signal, 3000) for signal, _ in nights])
    stages = np.concatenate([stages for _, stages in nights])
    spectra = np.abs(np.fft.rfft(windows)) ** 2
    frequencies = np.fft.rfftfreq(3000, 0.01)

    def of(stage, low, high, channel):
        band = (frequencies >= low) & (frequencies < high)
        chosen = spectra[stages == STAGES.index(stage)][:, CHANNELS.index(channel)]
        return np.sqrt(chosen[:, band].sum(-1)).mean() * np.sqrt(2) / 3000

    return of


def test_stages_have_their_rhythms_where_they_belong(power):
    assert power("W", 8, 12, "O1-M2") > 2 * power("N2", 8, 12, "O1-M2")
    assert power("W", 8, 12, "O1-M2") > 1.3 * power("W", 8, 12, "F3-M2")
    assert power("N3", 0.5, 3, "F3-M2") > 1.5 * power("N2", 0.5, 3, "F3-M2") > 1.5 * power("N1", 0.5, 3, "O1-M2")
    assert power("N2", 12, 15, "C3-M2") > 1.3 * power("R", 12, 15, "C3-M2")
    assert power("N1", 4.5, 7.5, "C3-M2") > power("W", 4.5, 7.5, "C3-M2")
    assert power("R", 0.3, 6, "E1-M2") > 1.2 * power("N3", 0.3, 6, "E1-M2")
    chin = [power(stage, 20, 50, "Chin1-Chin2") for stage in ("W", "N1", "N2", "R")]
    assert chin == sorted(chin, reverse=True)


def test_time_has_a_direction():
    """Fading rhythms return abruptly, and growing ones vanish abruptly, so abrupt changes have one sign."""
    steps = {"alpha": [], "delta": []}
    bands = {"alpha": (8, 12, "W", "O1-M2"), "delta": (0.7, 2.7, "N3", "F3-M2")}
    for seed in range(12):
        signal, stages = Sleeper(seed).night(40)
        for name, (low, high, stage, channel) in bands.items():
            patches = signal[CHANNELS.index(channel)].reshape(-1, 300)
            kept = slice(round(low * 3), round(high * 3))
            level = np.log((np.abs(np.fft.rfft(patches)[:, kept]) ** 2).sum(-1)).reshape(40, 10)
            steps[name].append(np.diff(level[stages == STAGES.index(stage)], axis=1).ravel())
    skewness = {name: (np.concatenate(each) ** 3).mean() for name, each in steps.items()}
    assert skewness["alpha"] > 0.3 and skewness["delta"] < -0.1, skewness


def test_courses_die_away_or_come_up_after_a_turn():
    assert set(COURSES) == set(RHYTHMS) | set(EVENTS)
    sleeper, stages = Sleeper(0), np.repeat(np.arange(5), 40)
    since = sleeper._since_turns(np.random.default_rng(0), len(stages) * SECONDS * sleeper.rate)
    assert 0 <= since.min() < 0.02 and TURNS[1] - 5 < since.max() <= TURNS[1]
    for name, constants in COURSES.items():
        courses = sleeper._course(constants, stages, since).reshape(5, -1)
        for tau, course, after in zip(constants, courses, since.reshape(5, -1), strict=True):
            early, late = course[after < 5].mean(), course[after > 40].mean()
            assert (early > 2 * late) if tau < 0 else (late > 2 * early) if tau else (course == 1).all(), name
            assert course[after < 30].mean() == pytest.approx(1, abs=0.08), name


def test_a_sleeper_is_the_same_everywhere_and_differs_from_others():
    one, again, other = Sleeper(3), Sleeper(3), Sleeper(4)
    assert np.array_equal(one.night(3)[0], again.night(3)[0])
    assert one._person != other._person
    frequencies = [Sleeper(seed)._person["alpha"] for seed in range(200)]
    assert 9.8 < np.mean(frequencies) < 10.2 and 0.6 < np.std(frequencies) < 1.0


def test_stages_follow_the_chain():
    np.testing.assert_allclose(TRANSITIONS.sum(1), 1)
    found = np.zeros((5, 5))
    for seed in range(60):
        stages = Sleeper(seed).hypnogram(400)
        np.add.at(found, (stages[:-1], stages[1:]), 1)
    assert (found.sum(1) > 500).all()
    # People are restless to a different degree, which does not change what follows what.
    leaving = found * (1 - np.eye(5))
    expected = TRANSITIONS * (1 - np.eye(5))
    shares = [each / each.sum(1, keepdims=True) for each in (leaving, expected)]
    assert np.abs(shares[0] - shares[1]).max() < 0.05
    assert not found[TRANSITIONS == 0].any()


def test_nights_are_read_as_the_challenge_s_are(tmp_path):
    told = []
    write_nights(tmp_path, 2, windows=5, seed=7, progress=lambda *at: told.append(at))
    assert told == [(1, 2), (2, 2)]
    assert READ == STAGES and set(EEG) <= set(CHANNELS)
    for number, record in enumerate(sorted((tmp_path / "training").iterdir())):
        night = PHYSIONET_2018.read(record)
        signal, stages = Sleeper(7_000_000 + number).night(5)
        assert np.array_equal(night.stages, stages) and night.windows.shape == (5, 6, 3000)
        # What was written in microvolts came back, but for the filter's edges.
        raw = end_to_end(signal[:6] - signal[:6].mean(-1, keepdims=True), 3000)
        same = [np.corrcoef(night.windows[2, c], raw[2, c])[0, 1] for c in range(6)]
        assert min(same) > 0.85
    assert "made up" in (record / f"{record.name}.hea").read_text()


def test_another_rate_has_more_samples_of_the_same_length(tmp_path):
    signal, stages = Sleeper(3, 200).night(2)
    assert signal.shape == (8, 2 * SECONDS * 200) and len(stages) == 2
    [record] = (write_nights(tmp_path, 1, windows=2, rate=200) / "training").iterdir()
    assert (record / f"{record.name}.hea").read_text().splitlines()[0] == f"{record.name} 8 200 12000"
    night = PHYSIONET_2018.read(record)
    assert night.windows.shape == (2, 6, 3000) and len(night.stages) == 2


def test_a_night_has_at_least_one_window():
    with pytest.raises(UsageError, match="windows=0"):
        Sleeper(0).night(0)
