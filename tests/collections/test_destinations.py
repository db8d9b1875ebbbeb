"""Places of results: what is written there is whole or not there, in folders and at addresses alike."""

import hashlib
import os
import pickle
import uuid
from pathlib import Path

import fsspec
import pytest

from partzoo.collections.destinations import destination_of
from partzoo.errors import PartzooError, UsageError


@pytest.fixture(params=["folder", "memory", "local"])
def place(request, tmp_path, monkeypatch):
    """An empty place: a folder, one of fsspec in memory, and one of fsspec on the disk."""
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "cache"))
    found = {"folder": tmp_path / "o", "memory": f"memory://{uuid.uuid4().hex}", "local": f"local://{tmp_path}/o"}
    return destination_of(found[request.param])


def test_files_and_folders_are_there_when_they_are_whole(place):
    with place.held():
        with place.aside("a/one.bin") as path:
            path.write_bytes(b"1")
            assert place.names("a") <= {each for each in place.names("a") if each.startswith(".partzoo")}
        with place.aside("a/two", folder=True) as path:
            (path / "deep").mkdir()
            (path / "deep" / "x.bin").write_bytes(b"22")
            (path / "y.bin").write_bytes(b"333")
        assert place.names("a") == {"one.bin", "two"} and place.names("nowhere") == set()
        assert place.read("a/one.bin") == b"1" and place.read("a/nothing") is None
        assert (place.size("a/one.bin"), place.size("a/two"), place.size("a/nothing")) == (1, 5, None)
        assert place.measured("a/one.bin") == (1, hashlib.sha256(b"1").hexdigest())
        lines = f"{hashlib.sha256(b'22').hexdigest()} deep/x.bin\n{hashlib.sha256(b'333').hexdigest()} y.bin\n"
        assert place.measured("a/two") == (5, hashlib.sha256(lines.encode()).hexdigest())
        with pytest.raises(FileNotFoundError):
            place.measured("a/nothing")
        copy = pickle.loads(pickle.dumps(place))
        copy.write("a/one.bin", b"new")
        with copy.aside("a/two", folder=True) as path:
            (path / "z.bin").write_bytes(b"4444")
        assert place.read("a/one.bin") == b"new" and place.size("a/two") == 4
        for name in ("a/one.bin", "a/two", "a/nothing"):
            place.remove(name)
        assert place.names("a") == set()


@pytest.mark.parametrize("folder", [False, True])
def test_what_fails_leaves_nothing(place, folder):
    with place.held():
        place.write("a/kept", b"1")
        with pytest.raises(ZeroDivisionError), place.aside("a/x", folder=folder):
            1 / 0  # noqa: B018
        assert place.names("a") == {"kept"}


def test_a_second_writer_is_refused_and_leftovers_are_removed(place):
    with place.held():
        with pytest.raises(UsageError, match="is being written by process"), place.held():
            pass
        if place.address.startswith("memory"):
            fsspec.filesystem("memory").pipe(f"{place.address}/a/.partzoo-x.1.part", b"half")
            place.write("a/b", b"1")
    with place.held():
        assert not any(name.startswith(".partzoo-") for name in place.names("a"))


def test_an_upload_that_fails_is_one_sentence(monkeypatch):
    place = destination_of(f"memory://{uuid.uuid4().hex}")

    def put_file(*_):
        raise RuntimeError("the bucket is full")

    monkeypatch.setattr(fsspec.filesystem("memory"), "put_file", put_file)
    with pytest.raises(PartzooError, match=r"Cannot write 'memory://.*/a/b': the bucket is full"):
        place.write("a/b", b"1")
    assert place.names("a") == set()


def test_places_that_cannot_be(tmp_path):
    with pytest.raises(UsageError, match="an address of the web"):
        destination_of("https://example.org/out")
    with pytest.raises(UsageError, match="cannot be reached"):
        destination_of("nosuch://bucket/out")
    (tmp_path / "file").write_text("")
    with pytest.raises(PartzooError, match="cannot be made"), destination_of(tmp_path / "file" / "out").held():
        pass


def test_an_address_of_a_file_is_the_folder_it_names(tmp_path):
    assert destination_of((tmp_path / "o").as_uri()) == destination_of(tmp_path / "o")
    assert Path(destination_of(os.path.relpath(tmp_path)).address) == tmp_path
