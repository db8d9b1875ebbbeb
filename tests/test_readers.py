"""Every reader turns whatever goes wrong into one error of ours, on one line, with the file's name and the cause."""

import pytest
from faults.seeds import KINDS

from partzoo.errors import (
    PartzooError,
)

HOSTILE = "a\nb\x1b[2J\u202egnp"
DAMAGES = {
    "empty": lambda data: b"",
    "a web page": lambda data: b"<!doctype html><html></html>",
    "half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "its last quarter replaced": lambda data: data[: len(data) * 3 // 4] + b"\xff" * (len(data) // 4),
    "twice": lambda data: data + data,
    "brackets": lambda data: b"[" * 20_000,
    "text that is not UTF-8": lambda data: b"\xff\xfe\xfa" + data,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_whole_file_is_read_and_a_damaged_one_is_one_sentence(kind, tmp_path, capfd, recwarn):
    file = kind.build(tmp_path)
    whole = file.read_bytes()
    kind.read(file)
    for damage in DAMAGES.values():
        file.write_bytes(damage(whole))
        try:
            kind.read(file)  # damage of what is not read, or that a format allows, is no error
        except PartzooError as error:
            assert str(tmp_path) in str(error) or kind.name.endswith("of a journal")
            assert str(error).isprintable()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if not kind.name.endswith("of a journal")], ids=lambda k: k.name
)
def test_a_missing_file_and_one_of_zeros_are_errors(kind, tmp_path):
    file = kind.build(tmp_path)
    size = file.stat().st_size
    if kind.name not in ("stl-10: test_X.bin", "annotations of wfdb", "night: stages"):  # of which zeros are valid
        file.write_bytes(bytes(size))
        with pytest.raises(PartzooError):
            kind.read(file)
    file.unlink()
    with pytest.raises(PartzooError):
        kind.read(file)
