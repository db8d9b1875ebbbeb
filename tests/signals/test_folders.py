"""Folders of recordings as training reads them, and the cache of prepared recordings."""

import numpy as np
import pytest
import torch
from helpers.edf import write_edf

from partzoo.errors import PartzooError, UsageError
from partzoo.skipping import SkippedWarning
from partzoo.train import windows as module
from partzoo.train.windows import SignalOptions, prepared, read_windows

pytest.importorskip("scipy")
SLEEP_EDF = ("EEG Fpz-Cz", "EEG Pz-Oz")


def noise(seconds, channels=2):
    return 30 * np.random.default_rng(0).normal(size=(channels, seconds * 100))


def options(tmp_path, **other):
    return SignalOptions(layout="edf", channels=SLEEP_EDF, cache=str(tmp_path / "cache"), **other)


def test_sleep_edf_is_read_as_it_is_downloaded(tmp_path):
    folder = tmp_path / "sleep-cassette"
    (folder / "more").mkdir(parents=True)
    slow = [np.ones(120)] * 3
    names = (*SLEEP_EDF, "Resp oro-nasal", "Temp rectal", "Event marker")
    units = ("uV", "uV", "", "DegC", "")
    write_edf(folder / "SC4001E0-PSG.edf", names, [*noise(120), *slow], [100, 100, 1, 1, 1], units=units)
    (folder / "._SC4001E0-PSG.edf").write_bytes(b"\x00\x05\x16\x07")  # what macOS leaves on other disks
    write_edf(folder / "SC4001EC-Hypnogram.edf", [], [], kind="EDF+C", note=b"Sleep stage W")
    write_edf(folder / "more" / "ST7011JP-Hypnogram.EDF", [], [], kind="EDF+C", note="für".encode("latin-1"))
    (folder / "RECORDS").write_text("SC4001E0-PSG.edf")
    (folder / "SC-subjects.xls").write_bytes(b"\xd0\xcf")
    assert len(read_windows(folder, options(tmp_path), progress=False)) == 4
    with pytest.raises(UsageError, match=r"holds no recordings: its \.edf files contain only annotations"):
        read_windows(folder / "more", options(tmp_path))


def test_gaps_and_missing_samples_in_a_folder_end_no_window_but_their_own(tmp_path):
    onsets = [f"+{i + 600 * (i >= 45)}" for i in range(120)]
    write_edf(tmp_path / "a.edf", SLEEP_EDF, noise(120), kind="EDF+D", onsets=onsets)
    assert len(read_windows(tmp_path, options(tmp_path), progress=False)) == 3
    onsets = [f"+{2 * i}" for i in range(60)]
    write_edf(tmp_path / "b.edf", SLEEP_EDF, noise(60), kind="EDF+D", onsets=onsets)
    named = r"b\.edf: Channel EEG Fpz-Cz misses samples .* from 1 s to 2 s, and no window"
    with pytest.warns(SkippedWarning, match=rf"Skipped: .*{named}"):
        assert len(read_windows(tmp_path, options(tmp_path), progress=False)) == 3
    (tmp_path / "a.edf").unlink()
    with pytest.raises(UsageError, match=rf"None of the 1 recordings can be read\. Of the first: .*{named}"):
        read_windows(tmp_path, options(tmp_path), progress=False)


def test_a_recording_shorter_than_a_window_is_skipped_and_named(tmp_path):
    write_edf(tmp_path / "long.edf", SLEEP_EDF, noise(60))
    write_edf(tmp_path / "short.edf", SLEEP_EDF, noise(20))
    with pytest.warns(SkippedWarning, match=r"Skipped: .*short\.edf: The recording lasts 20 s, less than one window"):
        assert len(read_windows(tmp_path, options(tmp_path), progress=False)) == 2


def damage_edf(folder, kind):
    """A recording of Sleep-EDF's channels, damaged in one way."""
    file = folder / "bad.edf"
    if kind == "channel":
        return write_edf(file, ("EEG Fpz-Cz", "EOG"), noise(60))
    write_edf(file, SLEEP_EDF, noise(60))
    content = file.read_bytes()
    file.write_bytes({"empty": b"", "header": content[:300], "text": b"not EDF" * 200, "record": content[:800]}[kind])
    return file


@pytest.mark.parametrize("kind", ["empty", "header", "text", "record", "channel"])
def test_one_bad_recording_in_a_folder_is_passed_over_and_named(tmp_path, kind):
    write_edf(tmp_path / "a.edf", SLEEP_EDF, noise(60))
    bad = damage_edf(tmp_path, kind)
    with pytest.warns(SkippedWarning, match="Skipped: ") as warned:
        found = read_windows(tmp_path, options(tmp_path), progress=False)
    assert [name for each in warned for name, _ in getattr(each.message, "items", ())] == [str(bad)]
    bad.unlink()
    whole = read_windows(tmp_path, options(tmp_path), progress=False)
    assert torch.equal(found.batch(torch.arange(len(found))), whole.batch(torch.arange(len(whole))))


@pytest.mark.parametrize("by", ["setting", "PARTZOO_CACHE", "home"])
def test_a_place_that_cannot_be_written_is_one_sentence_with_the_way_out(tmp_path, monkeypatch, by):
    write_edf(tmp_path / "a.edf", SLEEP_EDF, noise(60))
    taken = tmp_path / "taken"
    taken.write_text("a file, below which nothing can be made, whoever asks")
    for name in ("XDG_CACHE_HOME", "PARTZOO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv({"setting": "UNUSED", "PARTZOO_CACHE": "PARTZOO_CACHE", "home": "HOME"}[by], str(taken))
    cache = str(taken) if by == "setting" else ""
    chosen = SignalOptions(layout="edf", channels=SLEEP_EDF, cache=cache)
    with pytest.raises(PartzooError, match=r"kept in .*taken.*data\.cache .*cache=.*PARTZOO_CACHE\.$"):
        read_windows(tmp_path, chosen, progress=False)


def test_a_full_or_read_only_cache_still_gives_what_it_holds(tmp_path, monkeypatch):
    files = [write_edf(tmp_path / f"{name}.edf", SLEEP_EDF, noise(60)) for name in "ab"]

    def read(file):
        return (noise(1),)

    prepared(files[:1], read, "key", tmp_path / "cache", progress=False)

    def refused(path):
        raise PartzooError("Cannot write") from OSError(30, "Read-only file system")

    monkeypatch.setattr(module, "write_aside", refused)
    assert len(prepared(files[:1], read, "key", tmp_path / "cache", progress=False)) == 1
    with pytest.raises(PartzooError, match=r"kept in .*cache: Read-only file system\. Choose another"):
        prepared(files, read, "key", tmp_path / "cache", progress=False)


def test_a_home_is_written_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = write_edf(tmp_path / "a.edf", SLEEP_EDF, noise(60))
    assert len(prepared([file], lambda file: (noise(1),), "key", "~/nights", progress=False)) == 1
    assert len(list((tmp_path / "nights").iterdir())) == 1
