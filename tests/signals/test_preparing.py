import importlib.util

import numpy as np
import pytest

from partzoo.errors import MissingExtraError, ShapeError, UsageError
from partzoo.signals import end_to_end, filtered, normalized, read_edf, to_windows

pytest.importorskip("scipy")


def sine(frequency, seconds, rate):
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [100, 128, 200, 256, 512])
def test_the_band_stays_and_the_rest_goes_at_any_rate(rate):
    signal = np.stack([500 + 3 * sine(10, 120, rate), sine(5, 120, rate) + (sine(60, 120, rate) if rate > 120 else 0)])
    found = filtered(signal, rate)
    assert found.shape == (2, 12000) and found.dtype == np.float32
    expected = np.stack([3 * sine(10, 120, 100), sine(5, 120, 100)])
    assert np.abs(found - expected)[:, 3000:-3000].max() < 0.03


def test_another_band_and_another_rate_are_what_they_are_asked_to_be():
    signal = np.stack([sine(10, 120, 256), sine(40, 120, 256)])
    found = filtered(signal, 256, band=(30.0, 60.0), target=200)
    assert found.shape == (2, 24000)
    assert np.abs(found[0, 3000:-3000]).max() < 0.03
    assert np.abs(found[1] - sine(40, 120, 200))[3000:-3000].max() < 0.05
    assert filtered(signal[:, :1024], 128, target=50).shape == (2, 400)


def test_windows_lie_end_to_end_each_with_mean_0_and_deviation_1():
    signal = np.random.default_rng(0).normal(size=(6, 95 * 100)) * np.arange(1, 7)[:, None]
    windows = to_windows(signal, 100)
    assert windows.shape == (3, 6, 3000) and windows.dtype == np.float32
    assert np.abs(windows.mean(-1)).max() < 1e-4 and np.abs(windows.std(-1) - 1).max() < 1e-4
    assert np.array_equal(end_to_end(np.arange(10)[None], 4), [[[0, 1, 2, 3]], [[4, 5, 6, 7]]])


def test_a_silent_channel_is_zero_and_normalizing_twice_changes_nothing():
    windows = np.random.default_rng(0).normal(5, 3, (2, 2, 50)).astype(np.float32)
    windows[0, 1] = 7
    once = normalized(windows)
    assert not once[0, 1].any()
    np.testing.assert_allclose(normalized(once), once, atol=1e-5)


def test_signals_that_cannot_be_filtered_say_why():
    with pytest.raises(ShapeError, match=r"not \(3000,\)"):
        filtered(np.zeros(3000), 100)
    with pytest.raises(ShapeError, match="a second long"):
        filtered(np.zeros((2, 50)), 100)
    with pytest.raises(UsageError, match="rate=50: frequencies up to 30 Hz"):
        filtered(np.zeros((2, 500)), 50)


def write_edf(file, names, signal, rate):
    """EDF of microvolts, records of one second, by the format's specification."""
    seconds = signal.shape[1] // rate

    def fields(values, width):
        return "".join(str(value)[:width].ljust(width) for value in values)

    n = len(names)
    head = fields(["0"], 8) + fields(["X", "X"], 80) + fields(["01.01.20", "00.00.00"], 8)
    head += fields([256 * (n + 1)], 8) + fields([""], 44) + fields([seconds, 1], 8) + fields([n], 4)
    head += fields(names, 16) + fields([""] * n, 80) + fields(["uV"] * n, 8)
    head += fields([-3276.8] * n, 8) + fields([3276.7] * n, 8) + fields([-32768] * n, 8) + fields([32767] * n, 8)
    head += fields([""] * n, 80) + fields([rate] * n, 8) + fields([""] * n, 32)
    stored = np.rint(signal[:, : seconds * rate] * 10).astype("<i2")
    file.write_bytes(head.encode() + stored.reshape(n, seconds, rate).swapaxes(0, 1).tobytes())


def test_edf_gives_the_channels_that_are_asked_for_in_microvolts(tmp_path):
    pytest.importorskip("mne")
    signal = np.stack([50 * sine(frequency, 65, 200) for frequency in (3, 5, 7)])
    write_edf(tmp_path / "a.edf", ["EEG Fpz-Cz", "EEG Pz-Oz", "EOG"], signal, 200)
    found, rate = read_edf(tmp_path / "a.edf", ["eog", "EEG Fpz-Cz"])
    assert rate == 200 and np.abs(found - signal[[2, 0], : 65 * 200]).max() < 0.06
    assert to_windows(found, rate).shape == (2, 2, 3000)
    with pytest.raises(UsageError, match=r"has no channel C3-M2: it has EEG Fpz-Cz, EEG Pz-Oz, EOG"):
        read_edf(tmp_path / "a.edf", ["C3-M2"])
    (tmp_path / "b.edf").write_text("not EDF")
    with pytest.raises(UsageError, match=r"b\.edf cannot be read as EDF"):
        read_edf(tmp_path / "b.edf", ["C3-M2"])


def test_a_missing_extra_is_one_sentence(tmp_path):
    if importlib.util.find_spec("mne"):
        pytest.skip("mne is installed")
    with pytest.raises(MissingExtraError, match=r'mne is not installed: pip install "partzoo\[eeg\]"\.'):
        read_edf(tmp_path / "a.edf", ["C3-M2"])
