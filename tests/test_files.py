import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.command_line import partzoo as command

import partzoo
from partzoo import files
from partzoo.conversion.reading import read_checkpoint
from partzoo.data.reading import read_json
from partzoo.discovery.vocabulary import PartVocabulary
from partzoo.errors import PartzooError, UsageError
from partzoo.files import check_version, expand_user, path_aside, write_aside
from partzoo.parts.parts import Parts
from partzoo.places import check_place, make_folder

CAT = Path(__file__).parents[1] / "examples" / "images" / "cat.jpg"


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), write_aside(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_files_may_be_read_by_whom_the_umask_allows(tmp_path):
    with path_aside(tmp_path / "a") as aside:
        aside.touch()
        aside.chmod(stat.S_IRUSR)
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_threads_that_write_one_file_do_not_mix(tmp_path):
    def write(number: int) -> None:
        with write_aside(tmp_path / "a") as file:
            for _ in range(100):
                file.write(bytes([number]) * 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(set((tmp_path / "a").read_bytes())) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_the_names_of_new_folders_are_stored(tmp_path, monkeypatch):
    stored = []
    monkeypatch.setattr(files, "sync", stored.append)
    files.create_folder(tmp_path / "a" / "b")
    assert stored == [tmp_path, tmp_path / "a"]
    files.create_folder(tmp_path / "a" / "b")
    assert len(stored) == 2


def test_a_newer_format_is_refused_and_older_ones_are_not():
    for written in (None, 1, "2", 2):
        check_version(written, 2, "'a.npz'", PartzooError)
    with pytest.raises(PartzooError, match=r"^'a\.npz' was written by a newer version of partzoo \(format 3; .* 2\)"):
        check_version("3", 2, "'a.npz'", PartzooError)
    for written in ("two", [2], {}):
        with pytest.raises(PartzooError, match=r"states the format .* not a number"):
            check_version(written, 2, "'a.npz'", PartzooError)


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(PartzooError, match="Cannot write"), write_aside(tmp_path / "no" / "a"):
        pass


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "é" * 120 + ".npz", os.fsdecode(b"caf\xe9.png")])
def test_names_that_the_file_system_takes_are_written(tmp_path, name):
    with write_aside(tmp_path / name) as file:
        file.write(b"whole")
    assert (tmp_path / name).read_bytes() == b"whole" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("file:///a%20b/c.png", "pass the path, '/a b/c.png'"),
        ("FILE://localhost/c.png", "pass the path, '/c.png'"),
        ("s3://bucket/c.png", "pass the path of a file or a folder on this machine"),
        ("http://127.0.0.1/c.png", "pass the path of a file or a folder on this machine"),
    ],
)
def test_an_address_where_a_path_is_needed_is_one_clear_error(address, advice):
    with pytest.raises(UsageError, match=f"'{re.escape(address)}' is an address: {advice}"):
        expand_user(address)


def test_names_with_colons_are_paths():
    for name in ("C:\\a.png", "C://a.png", "a:b/c", "://a", "./http://a", "file:a"):
        assert expand_user(name) == Path(name)


@pytest.mark.parametrize(
    "words",
    [
        ("discover", "file:///a.png", "-o", "x.png"),
        ("discover", "ftp://a/a.png", "-o", "x.png"),
        ("discover", CAT, "--mask", "file:///a.png", "-o", "x.png"),
        ("discover", CAT, "-o", "file:///a.png"),
        ("discover", CAT, "--vocabulary", "https://a/v.safetensors", "-o", "x.png"),
        ("features", CAT, "--model", "file:///m.safetensors", "-o", "x.npz"),
        ("convert", "https://a/m.pth", "-o", "m"),
        ("swap", CAT, "file:///a.png", "-o", "x.png"),
    ],
)
def test_commands_name_addresses_that_they_do_not_open(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command(*words)
    assert ran.code == 2 and "is an address: pass the path" in ran.err and ran.err.count("\n") == 1, ran.err
    assert not list(tmp_path.iterdir())


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with write_aside("~/a") as file:
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.npz", Parts.load),
        ("a.index.png", Parts.load),
        ("a.safetensors", PartVocabulary.load),
        ("a.safetensors", partzoo.load),
        ("a.pth", read_checkpoint),
        ("a.json", read_json),
    ],
)
def test_a_file_that_may_not_be_opened_is_one_clear_error(name, read, tmp_path, monkeypatch):
    """Python's own open is refused here, since tests may run as root, who may open everything."""
    file = tmp_path / name
    file.write_bytes(b"damaged")
    really = open

    def refused(path, *rest, **options):
        if str(path) == str(file):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path, *rest, **options)

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(
        PartzooError, match=rf"{re.escape(name)}.*(Permission denied|complete safetensors|damaged|JSON)"
    ):
        read(file)


def test_an_unknown_user_s_home_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for write in (lambda path: check_place(path / "a.png"), make_folder, lambda path: Parts.load(path / "a.npz")):
        with pytest.raises(PartzooError, match="~no-such-user"):
            write(expand_user("~no-such-user/out"))
    assert not list(tmp_path.iterdir())
