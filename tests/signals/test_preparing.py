import numpy as np
import pytest

from partzoo.errors import ShapeError, UsageError
from partzoo.models.loading import build
from partzoo.models.part.signal_model import SignalPartConfig
from partzoo.models.registry import find
from partzoo.signals import end_to_end, filtered, normalized, to_windows, window_starts
from partzoo.signals.preparing import whole_windows

pytest.importorskip("scipy")


def sine(frequency, seconds, rate):
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def noise(channels, seconds, rate=100):
    return 20 * np.random.default_rng(0).normal(size=(channels, seconds * rate))


@pytest.mark.parametrize("rate", [100, 128, 200, 256, 512])
def test_the_band_stays_and_the_rest_goes_at_any_rate(rate):
    signal = np.stack([500 + 3 * sine(10, 120, rate), sine(5, 120, rate) + (sine(60, 120, rate) if rate > 120 else 0)])
    found = filtered(signal, rate)
    assert found.shape == (2, 12000) and found.dtype == np.float32
    expected = np.stack([3 * sine(10, 120, 100), sine(5, 120, 100)])
    assert np.abs(found - expected)[:, 3000:-3000].max() < 0.03


def test_another_band_and_another_rate_can_be_chosen():
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
    with pytest.raises(ShapeError, match=r"has shape \(3000,\)"):
        filtered(np.zeros(3000), 100)
    with pytest.raises(ShapeError, match="one second long"):
        filtered(np.zeros((2, 50)), 100)
    with pytest.raises(UsageError, match="rate=50 must exceed 60 samples per second"):
        filtered(np.zeros((2, 500)), 50)
    for rate in (60, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=f"rate={rate:g} must exceed 60"):
            filtered(np.zeros((2, 500)), rate)
    with pytest.raises(UsageError, match="rate='100' is not a number"):
        to_windows(np.zeros((2, 5000)), "100")
    with pytest.raises(UsageError, match="The signal is complex"):
        to_windows(np.zeros((2, 5000), complex), 100)


# Units


@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1e-3, 1e3, -1])
def test_windows_do_not_depend_on_the_unit(factor):
    signal = noise(3, 120)
    signal[1] *= 1e-4
    signal[2] = 0.1
    expected, found = to_windows(signal, 100), to_windows(signal * factor, 100)
    assert np.abs(found * np.sign(factor) - expected).max() < 1e-3
    assert np.abs(expected[:, :2].std(-1) - 1).max() < 1e-3 and not expected[:, 2].any()


@pytest.mark.parametrize("factor", [1e-6, 1, 1e3])
@pytest.mark.parametrize("level", [0, 0.1, 3000])
def test_a_channel_that_falls_silent_is_zero_from_then_on(factor, level):
    signal = noise(2, 300)
    signal[1, 6000:] = 0
    signal[1] += level
    windows = to_windows(factor * signal, 100)
    assert np.abs(windows[:2].std(-1) - 1).max() < 1e-3
    assert not windows[4:, 1].any() and np.abs(windows[:, 0].std(-1) - 1).max() < 1e-3


def test_one_loud_artefact_silences_nothing():
    signal = noise(1, 30 * 20)
    signal[0, 50_000:50_050] = 1e6
    assert np.abs(to_windows(signal, 100).std(-1) - 1).max() < 1e-3


# Missing samples


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [100, 128, 256])
def test_missing_samples_cost_their_window_alone(value, rate):
    signal = noise(3, 150, rate)
    expected = to_windows(signal, rate)
    signal[2, 61 * rate : 61 * rate + 10] = value
    kept = filtered(signal, rate)
    assert np.array_equal(kept[:2], filtered(signal[:2], rate)) and np.isnan(kept[2]).sum() <= 11
    with pytest.warns(UserWarning, match=r"Channel 2 misses samples .*from 61 s to 61\.\d+ s: windows restart"):
        windows = to_windows(signal, rate)
    assert windows.shape == (4, 3, 3000) and np.isfinite(windows).all()
    assert np.abs(windows[0] - expected[0]).max() < 0.01  # half a minute from the gap
    # The windows behind it begin at the first sample that is there.
    first = int(np.flatnonzero(np.isfinite(kept[2, 6100:]))[0]) + 6100
    assert window_starts(kept, 3000).tolist() == [0, 3000, first, first + 3000]
    whole = filtered(noise(3, 150, rate), rate)[:, first + 3000 : first + 6000]
    assert min(np.corrcoef(windows[3, i], whole[i])[0, 1] for i in range(3)) > 0.99


def test_missing_samples_at_the_ends_of_all_channels_or_in_a_mask():
    signal = noise(2, 100)
    signal[:, :500], signal[1, -100:] = np.nan, np.inf
    masked = np.ma.masked_invalid(noise(2, 100))
    masked[:, :500], masked[1, -100:] = np.ma.masked, np.ma.masked
    with pytest.warns(UserWarning, match="Channel EOG misses samples"):
        windows = to_windows(signal, 100, channels=["C3", "EOG"])
    assert windows.shape == (3, 2, 3000) and np.isfinite(windows).all()
    with pytest.warns(UserWarning, match="Channel 1"):
        np.testing.assert_allclose(to_windows(masked, 100), windows, atol=1e-6)


def test_stretches_below_a_second_are_left_out():
    signal = noise(1, 40)
    signal[0, ::50] = np.nan
    assert np.isnan(filtered(signal, 100)).all()


@pytest.mark.parametrize(
    ("gone", "match"),
    [
        (np.s_[1, :], r"Channel Pz misses samples .* from 0 s to 90 s, and no window of 30 s"),
        (np.s_[0, ::2500], r"Channel Cz misses samples .* from 0 s to 0\.01 s, and no window"),
        (np.s_[:, 2000:], r"Channel Cz misses samples .* from 20 s to 90 s"),
    ],
)
def test_a_recording_without_usable_windows_is_refused(gone, match):
    signal = noise(2, 90)
    signal[gone] = np.nan
    with pytest.raises(UsageError, match=match):
        to_windows(signal, 100, channels=("Cz", "Pz"))


def test_windows_that_are_not_finite_get_neither_normalized_nor_staged():
    windows = noise(4, 60).reshape(4, 2, 3000).astype(np.float32)
    windows[3, 1, 7] = np.inf
    with pytest.raises(UsageError, match="Window 3 has a value that is NaN or infinite in channel 1, at sample 7"):
        normalized(windows)
    model = build(find("part-vit1d"), SignalPartConfig(dim=24, depth=1, heads=2, channels=2, classes=5))
    assert model.stages(windows[:3]).shape == (3,)
    with pytest.raises(UsageError, match="Window 3 has"):
        model.stages(windows)


def test_one_window_with_a_missing_sample_and_a_shorter_signal_are_refused():
    signal = noise(1, 30)
    signal[0, 700] = np.nan
    with pytest.raises(UsageError, match=r"from 7 s to 7\.01 s, and no window of 30 s"):
        whole_windows(signal)
    with pytest.raises(UsageError, match=r"lasts 29\.99 s, less than one window of 30 s"):
        to_windows(signal[:, :2999], 100)
