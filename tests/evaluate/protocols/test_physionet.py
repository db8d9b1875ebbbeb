from dataclasses import replace

import numpy as np
import pytest

from partzoo.errors import ShapeError, UsageError
from partzoo.evaluate.protocols.physionet import CHANNELS, PHYSIONET_2018, STAGES
from partzoo.evaluate.protocols.wfdb import read_annotations, read_header

io = pytest.importorskip("scipy.io")

RATE = 200
# Stage, seconds; the last of them is written as one mark, which stands for 30 s.
NIGHT = [("W", 60), ("U", 30), ("N2", 90), ("N1", 45), ("R", 30)]
EXPECTED = ["W", "W", "N2", "N2", "N2", "N1", "R"]
STARTS = [0, 30, 90, 120, 150, 180, 225]


def annotations(marks):
    """An annotation file in MIT format of (sample, text), with steps of more than 1,023 samples as skips."""
    stored, last = b"", 0

    def word(code, value):
        return (code << 10 | value).to_bytes(2, "little")

    for time, text in marks:
        step = time - last
        if not 0 <= step <= 1023:
            high, low = divmod(step, 1 << 16)
            stored += word(59, 0) + high.to_bytes(2, "little", signed=True) + low.to_bytes(2, "little")
            step = 0
        stored += word(22, step) + word(61, 1) + word(62, 0)
        stored += word(63, len(text)) + text.encode() + b"\0" * (len(text) % 2)
        last = time
    return stored + word(0, 0)


def sine(frequency, seconds):
    return np.sin(2 * np.pi * frequency * np.arange(seconds * RATE) / RATE)


def write_record(folder, name, frequencies=range(2, 8)):
    """Write channels of one sine each, on an offset and a hum of 60 Hz, among unneeded channels."""
    record = folder / "training" / name
    record.mkdir(parents=True)
    seconds = sum(length for _, length in NIGHT)
    names = ["ECG", *CHANNELS[::-1], "Chin1-Chin2"]
    frequency = dict(zip(CHANNELS, frequencies, strict=True))
    waves = [500 + 1000 * sine(frequency.get(n, 1), seconds) + 400 * sine(60, seconds) for n in names]
    io.savemat(record / f"{name}.mat", {"val": np.rint(waves).astype(np.int16)}, format="4")
    lines = [f"{name}.mat 16+24 2(100)/uV 16 0 -4 -1163 0 {n}" for n in names]
    (record / f"{name}.hea").write_text("\n".join([f"{name} {len(names)} {RATE} {seconds * RATE}", *lines, "#Age: 55"]))
    starts = np.cumsum([0] + [length for _, length in NIGHT[:-1]])
    stages = [(int(start) * RATE, stage) for start, (stage, _) in zip(starts, NIGHT, strict=True)]
    events = [(10 * RATE, "(resp_hypopnea"), (70_0, "resp_hypopnea)"), (100 * RATE, "(arousal_rera")]
    (record / f"{name}.arousal").write_bytes(annotations(sorted(stages + events)))
    return record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("challenge")
    for i in range(6):
        write_record(folder, f"tr03-{i:04}")
    return folder


SMALL = replace(PHYSIONET_2018, train_subjects=2, test_subjects=3)


@pytest.fixture(scope="module")
def night(folder):
    return SMALL.read(folder / "training/tr03-0000")


def test_windows_have_the_stage_that_was_annotated(night):
    assert [STAGES[i] for i in night.stages] == EXPECTED and night.record == "tr03-0000"
    assert night.windows.shape == (7, 6, 3000) and night.windows.dtype == np.float32


def test_channels_are_the_six_in_order_filtered_and_resampled(night):
    seconds = np.arange(3000) / 100
    for window, start in zip(night.windows[1:-1], STARTS[1:-1], strict=True):
        for channel, frequency in zip(window, range(2, 8), strict=True):
            # What is left of the sine, the hum and the offset is the sine, with deviation 1.
            expected = np.sqrt(2) * np.sin(2 * np.pi * frequency * (seconds + start))
            assert np.abs(channel - expected).max() < 0.02


def test_every_channel_of_a_window_is_normalized(night):
    assert np.abs(night.windows.mean(-1)).max() < 1e-5
    assert np.abs(night.windows.std(-1) - 1).max() < 1e-4


def test_a_flat_channel_is_zero(tmp_path):
    record = write_record(tmp_path, "tr03-0001")
    stored = io.loadmat(record / "tr03-0001.mat")["val"]
    stored[6] = 3000
    io.savemat(record / "tr03-0001.mat", {"val": stored}, format="4")
    windows = SMALL.read(record).windows
    assert np.abs(windows[:, 0]).max() < 1e-2 and np.abs(windows[:, 1].std(-1) - 1).max() < 1e-4


def test_windows_beyond_the_signal_are_left_out(tmp_path):
    record = write_record(tmp_path, "tr03-0001")
    marks = [(0, "N3"), (240 * RATE, "W")]
    (record / "tr03-0001.arousal").write_bytes(annotations(marks))
    assert [STAGES[i] for i in SMALL.read(record).stages] == ["N3"] * 8
    (record / "tr03-0001.arousal").write_bytes(annotations([(0, "(arousal_snore")]))
    with pytest.raises(UsageError, match="no sleep stages"):
        SMALL.read(record)


def test_subjects_are_split_and_the_test_is_the_same_for_every_seed(folder):
    splits = {split: {r.name for r in SMALL.records(folder, split)} for split in ("train", "test", "rest")}
    assert [len(splits[split]) for split in ("train", "test", "rest")] == [2, 3, 1]
    assert len(set.union(*splits.values())) == 6
    assert splits["test"] == {r.name for r in SMALL.records(folder, "test", seed=5)}
    drawn = {frozenset(r.name for r in SMALL.records(folder, "train", seed=seed)) for seed in range(8)}
    assert len(drawn) > 1 and not any(splits["test"] & names for names in drawn)


def test_accuracy_and_kappa_over_the_test_subjects(folder):
    truth = np.array([STAGES.index(stage) for stage in EXPECTED])
    assert SMALL.evaluate(lambda windows: truth, folder) == {"accuracy": 100.0, "kappa": 1.0}
    # Both W as R: 5 of 7 agree; by chance (3 * 3 + 1 + 1 * 3) / 49.
    wrong = np.where(truth == 0, 4, truth)
    scores = SMALL.evaluate(lambda windows: wrong, folder)
    chance = (3 * 3 + 1 * 1 + 1 * 3) / 49
    assert scores["accuracy"] == pytest.approx(500 / 7)
    assert scores["kappa"] == pytest.approx((5 / 7 - chance) / (1 - chance))
    with pytest.raises(ShapeError, match="predict must return"):
        SMALL.evaluate(lambda windows: truth[:-1], folder)


def test_missing_data_says_what_to_download(tmp_path, folder):
    with pytest.raises(UsageError, match=r"training, which is not there.*physionet\.org"):
        SMALL.records(tmp_path, "test")
    with pytest.raises(UsageError, match=r"needs 210 records, and .* has 6"):
        PHYSIONET_2018.records(folder, "test")
    with pytest.raises(UsageError, match="'dev' of physionet-2018"):
        SMALL.records(folder, "dev")
    record = write_record(tmp_path, "tr03-0001")
    (record / "tr03-0001.arousal").unlink()
    with pytest.raises(UsageError, match=r"tr03-0001\.arousal, which is not there"):
        SMALL.read(record)


def test_a_record_without_a_channel_is_refused(tmp_path):
    record = write_record(tmp_path, "tr03-0001")
    header = record / "tr03-0001.hea"
    header.write_text(header.read_text().replace("C3-M2", "C3-M1"))
    with pytest.raises(UsageError, match="has no channel C3-M2"):
        SMALL.read(record)


def test_header_by_hand(tmp_path):
    (tmp_path / "a.hea").write_text(
        "# a comment\na 3 200/1 400 12:00:00\na.mat 16+24 1/uV 16 7 -4 -1163 0 F3-M2\n"
        "a.mat 16+24 0.5(-10)/mV 16 0 -4 5 0 Airflow 2\na.mat 16+24 0 16 0 -4 5 0 ECG\n"
    )
    found = read_header(tmp_path / "a.hea")
    assert found.rate == 200 and found.names == ("F3-M2", "Airflow 2", "ECG")
    assert found.gains == (1, 0.5, 200) and found.baselines == (7, -10, 0)
    assert found.units == ("uV", "mV", "mV") and found.no_values == (-32768,) * 3 and found.samples == 400


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_headers_in_any_encoding_and_with_any_line_ends_are_read(tmp_path, encoding, end):
    lines = ["a 2 200", "a.mat 24x1+24 2(5)/µV 16 0 -4 5 0 C3-M2", "a.mat 212 2/mV 16 0 -4 5 0 Gerät", "# für später"]
    (tmp_path / "a.hea").write_bytes(end.join(lines).encode(encoding))
    found = read_header(tmp_path / "a.hea")
    assert found.names == ("C3-M2", "Gerät") and found.units == ("µV", "mV") and found.samples == 0
    assert found.rate == 200 and found.no_values == (-(2**23), -(2**11))


# Units, missing samples, files that are not whole


def changed(folder, change=lambda stored: None, header=lambda text: text, kind=np.int16):
    """Write a record with other stored values or another header."""
    record = write_record(folder, "tr03-0001")
    file = record / "tr03-0001.mat"
    stored = io.loadmat(file)["val"].astype(kind)
    replacement = change(stored)
    io.savemat(file, {"val": stored if replacement is None else replacement}, format="4")
    (record / "tr03-0001.hea").write_text(header((record / "tr03-0001.hea").read_text()))
    return record


@pytest.mark.parametrize(
    ("header", "factor"),
    [("2(100)/mV", 1e3), ("2(100)/V", 1e6), ("2(100)/nV", 1e-3), ("2(100)/UV", 1), ("2(100)", 1e3)],
)
def test_units_of_the_header_are_read(tmp_path, header, factor):
    record = changed(tmp_path, header=lambda text: text.replace("2(100)/uV", header))
    values = SMALL._signal(record)[0]
    expected = SMALL._signal(write_record(tmp_path / "as-it-was", "tr03-0001"))[0]
    np.testing.assert_allclose(values, factor * expected, rtol=1e-3, atol=1e-3 * factor)


def test_an_unknown_unit_of_the_header_is_warned_of(tmp_path):
    record = changed(tmp_path, header=lambda text: text.replace("/uV", "/adu"))
    with pytest.warns(UserWarning, match=r"tr03-0001\.hea states the unit 'adu': this unit of voltage is unknown"):
        assert SMALL.read(record).windows.shape == (7, 6, 3000)


@pytest.mark.parametrize(
    ("form", "kind", "value"),
    [("16", np.int16, -(2**15)), ("24", np.int32, -(2**23)), ("32", np.int32, -(2**31)), ("16", np.float64, np.nan)],
)
def test_a_missing_value_removes_only_its_windows(tmp_path, night, form, kind, value):
    def gone(stored):
        stored[2, 100 * RATE : 100 * RATE + 3] = value

    record = changed(tmp_path, gone, lambda text: text.replace("16+24", f"{form}+24"), kind)
    found = SMALL.read(record)
    assert [STAGES[i] for i in found.stages] == EXPECTED[:2] + EXPECTED[3:]
    kept = np.delete(night.windows, 2, 0)
    assert np.isfinite(found.windows).all() and np.abs(found.windows - kept)[[0, 1, 3, 4]].max() < 0.2
    windows = SMALL.read_unlabelled(record)
    assert len(windows) == 3 + 5 and np.isfinite(windows).all()


def test_a_record_without_usable_windows_is_refused(tmp_path):
    def gone(stored):
        stored[3] = -32768

    record = changed(tmp_path, gone)
    for read in (SMALL.read, SMALL.read_unlabelled):
        with pytest.raises(UsageError, match=r"tr03-0001: Channel C4-M1 misses samples .* from 0 s to 255 s"):
            read(record)


def test_a_record_that_breaks_off_is_warned_of(tmp_path):
    record = changed(tmp_path, lambda stored: stored[:, : 100 * RATE])
    with pytest.warns(UserWarning, match=r"tr03-0001\.mat is truncated: its header states 51000 samples, .* 20000"):
        assert len(SMALL.read(record).stages) == 2
    (record / "tr03-0001.mat").write_bytes((record / "tr03-0001.mat").read_bytes()[:10_000])
    with pytest.raises(UsageError, match=r"tr03-0001\.mat holds no readable 'val' .*: download it again"):
        SMALL.read(record)
    with pytest.raises(UsageError, match="holds 3 signals, and its header 8"):
        SMALL.read(changed(tmp_path / "few", lambda stored: stored[:3]))


@pytest.mark.parametrize("text", ["", "a 2 200 400\na.mat 16+24 1/uV 16 0 -4 5 0 ECG\n", "a\n", "a 1 fast 4\nb\n"])
def test_what_is_no_header_is_refused(tmp_path, text):
    (tmp_path / "a.hea").write_text(text)
    with pytest.raises(UsageError, match=r"a\.hea is (not a|empty)"):
        read_header(tmp_path / "a.hea")


def test_annotations_keep_times_over_short_and_long_steps(tmp_path):
    marks = [(0, "## time resolution: 200"), (1023, "W"), (1030, "(x"), (70_000, "N1"), (5_000_000, "R")]
    (tmp_path / "a.arousal").write_bytes(annotations(marks))
    assert read_annotations(tmp_path / "a.arousal") == marks


def test_annotations_that_break_off_are_refused(tmp_path):
    (tmp_path / "a.arousal").write_bytes(annotations([(5, "W")])[:-2])
    with pytest.raises(UsageError, match="ends before its end mark"):
        read_annotations(tmp_path / "a.arousal")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ((-3000, 0, 6000), r"annotation 1 is at sample -3000, before the beginning"),
        ((0, 6000, 3000), r"annotation 3 is at sample 3000, before the one before it \(sample 6000\)"),
    ],
)
def test_annotations_out_of_order_are_refused(tmp_path, times, message):
    record = write_record(tmp_path, "tr03-0001")
    file = record / "tr03-0001.arousal"
    file.write_bytes(annotations([(time, "N2") for time in times]))
    with pytest.raises(UsageError, match=rf"tr03-0001\.arousal: {message}"):
        read_annotations(file)
    with pytest.raises(UsageError, match=message):
        PHYSIONET_2018.read(record)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("a 1 200 -5\na.mat 16 2(0)/uV 16 0 0 0 0 C3", r"a\.hea, line 1: the number of samples is -5"),
        ("#\na 1 200 5\na.mat 16 nan(0)/uV 16 0 0 0 0 C3", r"a\.hea, line 3: gain nan and baseline 0 of C3"),
        ("a 1 200 5\na.mat 16 2(inf)/uV 16 0 0 0 0 C3", r"a\.hea, line 2: gain 2 and baseline inf of C3"),
    ],
)
def test_values_of_a_header_out_of_range_are_refused(tmp_path, header, message):
    (tmp_path / "a.hea").write_text(header)
    with pytest.raises(UsageError, match=message):
        read_header(tmp_path / "a.hea")
