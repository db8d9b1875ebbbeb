import warnings

import numpy as np
import pytest
from helpers.edf import NOTE_BYTES, write_edf

from partzoo.errors import UsageError
from partzoo.signals import read_edf, to_windows
from partzoo.signals.units import microvolts

STEP = 0.0501  # half a tenth, by which what is stored is rounded


def noise(channels=2, seconds=60, rate=100):
    return 30 * np.random.default_rng(0).normal(size=(channels, seconds * rate))


@pytest.fixture(autouse=True)
def _nothing_is_said():
    """Warnings that a test does not expect are failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Channels


def test_channels_come_in_the_asked_order_under_their_exact_names(tmp_path):
    signal = noise(3)
    file = write_edf(tmp_path / "a.edf", ["C3", "c3", "EEG Fpz-Cz"], signal)
    for asked, rows in ((["C3"], [0]), (["c3"], [1]), (["EEG Fpz-Cz", "c3", "C3", "c3"], [2, 1, 0, 1])):
        found, rate = read_edf(file, asked)
        assert rate == 100 and np.abs(found - signal[rows]).max() < STEP


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (["Cz"], r"a\.edf has no channel Cz: it has C3, EEG-0, EEG-1\. Choose with data\.channels\."),
        (["c3"], r"has no channel c3: .* Did you mean C3\?"),
        (["EEG"], r"has no channel EEG: it has C3, EEG-0, EEG-1"),
        ([], r"channels is empty"),
    ],
)
def test_a_channel_that_is_not_there_is_not_replaced(tmp_path, asked, match):
    file = write_edf(tmp_path / "a.edf", ["C3", "EEG", "EEG"], noise(3))
    with pytest.raises(UsageError, match=match):
        read_edf(file, asked)


def test_labels_that_occur_twice_are_numbered(tmp_path):
    signal = noise()
    file = write_edf(tmp_path / "a.edf", ["EEG", "EEG"], signal)
    assert np.abs(read_edf(file, ["EEG-1"])[0] - signal[1:]).max() < STEP


@pytest.mark.parametrize("unwanted", [{}, {"units": "Ohm"}, {"ranges": (0, 0)}, {"ranges": ("low", "high")}])
def test_an_unwanted_channel_changes_neither_rate_nor_values(tmp_path, unwanted):
    eeg, other = noise(1)[0], noise(1, rate=512)[0]
    settings = {"units": ["uV", unwanted.get("units", "uV")]}
    settings["ranges"] = [(-3276.8, 3276.7), unwanted.get("ranges", (-3276.8, 3276.7))]
    found, rate = read_edf(write_edf(tmp_path / "a.edf", ["EEG", "ECG"], (eeg, other), (100, 512), **settings), ["EEG"])
    assert rate == 100 and found.shape == (1, 6000) and np.abs(found[0] - eeg).max() < STEP


def test_wanted_channels_of_other_rates_are_resampled_to_the_highest(tmp_path):
    pytest.importorskip("scipy")
    times = [np.arange(60 * rate) / rate for rate in (20, 100)]
    slow, fast = (50 + 30 * np.sin(2 * np.pi * 0.5 * t) for t in times)
    file = write_edf(tmp_path / "a.edf", ["slow", "fast"], [slow, fast], [20, 100])
    found, rate = read_edf(file, ["slow", "fast"])
    assert rate == 100 and np.abs(found[1] - fast).max() < STEP
    assert np.abs(found[0] - fast)[500:-500].max() < 0.5


# Units


@pytest.mark.parametrize(
    ("factor", "units"),
    [
        (1e6, ["V", "v", "Volt", "volts"]),
        (1e3, ["mV", "mv", "millivolt", " mV "]),
        (1, ["uV", "UV", "uv", "µV", "\u03bcV", "uVolt", "microvolt", "Microvolts", "æV"]),
        (1e-3, ["nV", "NV", "nanovolt"]),
        (None, ["", "MV", "Mv", "Ohm", "degC", "%", "bpm", "mV/s", "uVV", "kg"]),
    ],
)
def test_units_of_voltage_are_read_in_any_letters(factor, units):
    assert [microvolts(unit) for unit in units] == [factor] * len(units)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("V", 1e6), ("mV", 1e3), ("uV", 1), ("UV", 1), ("nV", 1e-3), ("µV".encode("latin-1"), 1), ("µV".encode(), 1)],
)
def test_edf_gives_microvolts(tmp_path, unit, factor):
    signal = noise()
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, units=["uV", unit])
    found, _ = read_edf(file, ["C4", "C3"])
    assert np.abs(found[0] / factor - signal[1]).max() < STEP and np.abs(found[1] - signal[0]).max() < STEP


def test_unknown_units_are_warned_of_once(tmp_path):
    signal = noise(3)
    file = write_edf(tmp_path / "a.edf", ["C3", "C4", "Cz"], signal, units=["", "uV", "MV"])
    with pytest.warns(
        UserWarning, match=r"a\.edf states C3 in '', Cz in 'MV': this unit of voltage is unknown"
    ) as seen:
        found, _ = read_edf(file, ["C3", "C4", "Cz"])
    assert len(seen) == 1 and np.abs(found - signal).max() < STEP
    assert np.abs(read_edf(file, ["C4"])[0] - signal[1]).max() < STEP  # without a warning


@pytest.mark.parametrize("limits", [(0, 0), (5, 5)])
def test_a_channel_without_a_range_is_warned_of(tmp_path, limits):
    signal = noise()
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, ranges=[(-3276.8, 3276.7), limits])
    with pytest.warns(UserWarning, match=r"a\.edf states no range for C4 .*unit is unknown"):
        found, _ = read_edf(file, ["C3", "C4"])
    assert np.array_equal(found[1], np.rint(signal[1] * 10)) and np.abs(found[0] - signal[0]).max() < STEP


def test_polarity_and_decimal_commas_of_the_range_are_read(tmp_path):
    signal = noise()
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, ranges=[("-3276,8", "3276,7"), (3276.7, -3276.8)])
    found, _ = read_edf(file, ["C3", "C4"])
    assert np.abs(found[0] - signal[0]).max() < STEP and np.abs(found[1] + signal[1]).max() < 0.2
    file = write_edf(tmp_path / "b.edf", ["C3"], signal[:1], ranges=("", "nan"))
    with pytest.raises(UsageError, match=r"for the range of channel C3, its header states ''"):
        read_edf(file, ["C3"])


def test_ranges_that_are_not_symmetric_are_exact_at_one_rate_and_at_two(tmp_path):
    signals = [noise(1)[0], noise(1, rate=200)[0]]
    for rates in ([100, 100], [100, 200]):
        stored = [signals[0], signals[rates[1] // 100 - 1]]
        file = write_edf(tmp_path / "a.edf", ["C3", "C4"], stored, rates, ranges=[(-1000, 3000), (-250.5, 80)])
        for row, (name, low, high) in enumerate((("C3", -1000, 3000), ("C4", -250.5, 80))):
            steps = np.rint(stored[row] * 10) + 32768
            found, rate = read_edf(file, [name])
            assert rate == rates[row]
            np.testing.assert_allclose(found[0], low + steps * (high - low) / 65535, atol=1e-9)


# Gaps


@pytest.mark.parametrize("first", [0, 0.5, 7200])
@pytest.mark.parametrize("gap", [0.01, 0.4, 1, 600, 40_000])
def test_a_gap_of_edf_d_is_missing_samples(tmp_path, gap, first):
    signal = noise(seconds=120)
    onsets = [f"+{first + i + gap * (i >= 45):.6g}" for i in range(120)]
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, kind="EDF+D", onsets=onsets)
    found, rate = read_edf(file, ["C3", "C4"])
    gone = round(gap * 100)
    assert rate == 100 and found.shape == (2, 12000 + gone)
    assert np.isnan(found[:, 4500 : 4500 + gone]).all()
    assert np.abs(np.delete(found, np.s_[4500 : 4500 + gone], 1) - signal).max() < STEP


def test_no_window_spans_a_gap(tmp_path):
    pytest.importorskip("scipy")
    signal = noise(seconds=160)
    jumps = np.array([0] * 45 + [600] * 75 + [601] * 20 + [900] * 20)  # 45, 75, 20 and 20 seconds
    onsets = [f"+{i + jump}" for i, jump in enumerate(jumps)]
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, kind="EDF+D", onsets=onsets)
    with pytest.warns(UserWarning, match=r"Channel 0 misses samples .* from 45 s to 645 s"):
        windows = to_windows(*read_edf(file, ["C3", "C4"]))
    assert len(windows) == 1 + 2
    for window, start in zip(windows, (0, 45, 75), strict=True):
        likeness = [np.corrcoef(window[i], signal[i, start * 100 : (start + 30) * 100])[0, 1] for i in range(2)]
        assert min(likeness) > 0.6


@pytest.mark.parametrize("kind", ["EDF+C", "EDF+D"])
def test_onsets_that_are_rounded_are_no_gaps(tmp_path, kind):
    signal = noise(rate=1000)
    onsets = [f"+{i + i % 2 / 1000}" for i in range(60)]
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, 1000, kind=kind, onsets=onsets)
    assert np.abs(read_edf(file, ["C3", "C4"])[0] - signal).max() < STEP


def test_edf_d_without_gaps_is_read_as_it_is(tmp_path):
    signal = noise()
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, kind="EDF+D")
    assert np.abs(read_edf(file, ["C3", "C4"])[0] - signal).max() < STEP


@pytest.mark.parametrize(
    ("onsets", "match"),
    [
        ({7: ""}, r"EDF\+D, and its record 8 of 60 states no onset"),
        ({7: "+3"}, r"record 8 of 60 states no onset after the end of the one before"),
        ({59: "+200000"}, r"has gaps of 56 hours in all, but at most 24"),
    ],
)
def test_gaps_that_are_unknown_or_endless_are_refused(tmp_path, onsets, match):
    stated = [onsets.get(i, f"+{i}") for i in range(60)]
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], noise(), kind="EDF+D", onsets=stated)
    with pytest.raises(UsageError, match=match):
        read_edf(file, ["C3"])


def test_edf_c_with_a_gap_is_read_with_it_and_warned_of(tmp_path):
    signal = noise()
    onsets = [f"+{i + 10 * (i >= 20)}" for i in range(60)]
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, kind="EDF+C", onsets=onsets)
    with pytest.warns(UserWarning, match=r"is not EDF\+D, but states a gap of 10 s after 20 s"):
        found, _ = read_edf(file, ["C3"])
    assert np.isnan(found[0, 2000:3000]).all() and np.isnan(found).sum() == 1000
    for broken in (["+0"] * 60, [""] * 60):  # by definition, EDF+C has no gaps
        file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, kind="EDF+C", onsets=broken)
        assert np.abs(read_edf(file, ["C3"])[0] - signal[0]).max() < STEP


def test_channels_of_two_rates_keep_their_gap(tmp_path):
    pytest.importorskip("scipy")
    onsets = [f"+{i + 2 * (i >= 20)}" for i in range(60)]
    signals = [np.full(60 * 20, 5.0), np.full(60 * 100, 7.0)]
    file = write_edf(tmp_path / "a.edf", ["slow", "fast"], signals, [20, 100], kind="EDF+D", onsets=onsets)
    found, _ = read_edf(file, ["slow", "fast"])
    assert np.isnan(found[:, 2000:2200]).all() and np.isnan(found).sum() == 400
    assert np.nanmax(np.abs(found - [[5], [7]])) < STEP


# Notes, and files that are not whole


@pytest.mark.parametrize("text", ["fürs Gerät".encode(), "fürs Gerät".encode("latin-1"), "体動".encode("shift-jis")])
def test_notes_in_any_encoding_do_not_matter(tmp_path, text):
    signal = noise()
    for kind in ("EDF+C", "EDF+D"):
        file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, kind=kind, note=text)
        assert np.abs(read_edf(file, ["C4", "C3"])[0] - signal[::-1]).max() < STEP


@pytest.mark.parametrize("more", [b"+3\x14arousal\x14\0", b"+3\x150\x14arousal\x14\0", b"-5\x1530\x14lights off\x14\0"])
@pytest.mark.parametrize("kind", ["EDF+C", "EDF+D"])
def test_annotations_without_duration_or_before_the_start_do_not_matter(tmp_path, kind, more):
    signal = noise()
    onsets = [f"+{0.25 + i}" for i in range(60)]
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, kind=kind, onsets=onsets, note=b"W\x14\0" + more)
    found, rate = read_edf(file, ["C3", "C4"])
    assert rate == 100 and found.shape == (2, 6000) and np.abs(found - signal).max() < STEP


def test_labels_in_latin_1_are_read(tmp_path):
    file = write_edf(tmp_path / "a.edf", ["Gerät".encode("latin-1"), "Ohr—C3".encode()], noise())
    assert read_edf(file, ["Gerät", "Ohr—C3"])[0].shape == (2, 6000)


@pytest.mark.parametrize(
    ("stated", "lost", "kept", "match"),
    [
        (None, 40 * 400, 20, "states 60 records, but it holds 20 whole ones. The"),
        (None, 100, 59, "holds 59 whole ones and a part of one"),
        (-1, 0, 60, "states -1 records, but it holds 60 whole ones. The"),
        (50, 0, 60, "states 50 records, but it holds 60"),
    ],
)
def test_recordings_that_break_off_are_warned_of_and_read_as_far_as_they_go(tmp_path, stated, lost, kept, match):
    signal = noise()
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], signal, records=stated)
    stored = file.read_bytes()
    file.write_bytes(stored[: len(stored) - lost])
    with pytest.warns(UserWarning, match=match):
        found, _ = read_edf(file, ["C3", "C4"])
    assert np.abs(found - signal[:, : kept * 100]).max() < STEP


@pytest.mark.parametrize(
    ("keep", "match"),
    [(100, "states ''"), (400, "within its header"), (900, "within its first record")],
)
def test_files_without_a_whole_record_are_refused(tmp_path, keep, match):
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], noise())
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UsageError, match=rf"a\.edf cannot be read as EDF.*{match}"):
        read_edf(file, ["C3"])


def test_what_is_not_edf_is_one_sentence(tmp_path):
    (tmp_path / "b.edf").write_text("not EDF")
    for name, match in (("b.edf", r"b\.edf cannot be read as EDF"), ("c.edf", "No such file"), (".", "Is a directory")):
        with pytest.raises(UsageError, match=match):
            read_edf(tmp_path / name, ["C3"])
    (tmp_path / "d.edf").write_bytes(b"\xffBIOSEMI" + b" " * 300)
    with pytest.raises(UsageError, match="it is BDF"):
        read_edf(tmp_path / "d.edf", ["C3"])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"\x1f\x8b" + bytes(600), "is compressed with gzip"),
        (b"", "is empty"),
    ],
)
def test_what_stands_in_for_an_edf_file_is_recognized(tmp_path, content, match):
    (tmp_path / "a.edf").write_bytes(content)
    with pytest.raises(UsageError, match=rf"a\.edf {match}"):
        read_edf(tmp_path / "a.edf", ["C3"])


def test_annotations_alone_are_no_recording(tmp_path):
    file = write_edf(tmp_path / "SC4001EC-Hypnogram.edf", [], [], kind="EDF+C", note=b"Sleep stage W")
    assert file.stat().st_size == 512 + NOTE_BYTES
    with pytest.raises(UsageError, match="holds only annotations"):
        read_edf(file, ["EEG Fpz-Cz"])


def test_records_without_length_or_samples_are_refused(tmp_path):
    file = write_edf(tmp_path / "a.edf", ["C3", "C4"], noise())
    stored = bytearray(file.read_bytes())
    stored[244:252] = b"0       "  # seconds of a record
    (tmp_path / "b.edf").write_bytes(stored)
    with pytest.raises(UsageError, match="its records of 0 s hold no samples"):
        read_edf(tmp_path / "b.edf", ["C3"])
    file = write_edf(tmp_path / "c.edf", ["C3", "C4"], (noise(1)[0], np.zeros(0)), (100, 0))
    with pytest.raises(UsageError, match="its records of 1 s hold no samples"):
        read_edf(file, ["C3", "C4"])
    assert read_edf(file, ["C3"])[0].shape == (1, 6000)
