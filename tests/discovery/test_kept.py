"""What the networks found is kept exactly, in memory and then in a file that nothing leaves behind."""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import partzoo
from partzoo.discovery import kept as module
from partzoo.discovery.clustered import ClusteredFinder
from partzoo.discovery.kept import Kept


@dataclass(frozen=True)
class Found:
    """Something to keep."""

    values: torch.Tensor

    @property
    def bytes(self):
        return self.values.nbytes


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def found(number, size=100):
    with torch.inference_mode():
        values = torch.rand(2, 5, size // 10, generator=torch.Generator().manual_seed(number))
        return Found(values.permute(2, 0, 1))


def test_what_exceeds_the_memory_goes_to_a_file_and_comes_back_exactly(place, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 1000)
    kept = Kept()
    for number in range(6):
        kept.add(number, found(number))
    kept.add(6, None)
    assert len(kept._found) == 2
    for number in (5, 0, 3, 2, 4, 1):
        back, expected = kept.pop(number).values, found(number).values
        assert torch.equal(back, expected) and back.stride() == expected.stride()
        assert kept.pop(number) is None
    assert kept.pop(6) is None and kept.pop(7) is None


def test_the_file_is_bounded(place, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    monkeypatch.setattr(module, "SPILLED_BYTES", 1000)
    kept = Kept()
    for number in range(5):
        kept.add(number, found(number))
    assert [kept.pop(number) is None for number in range(5)] == [False, *[True] * 4]


@pytest.mark.parametrize("kind", ["no folder", "full disk", "cut short"])
def test_a_file_that_fails_keeps_nothing(place, monkeypatch, kind):
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    kept = Kept()
    if kind == "no folder":
        monkeypatch.setattr(tempfile, "tempdir", str(place / "nowhere"))
    kept.add(0, found(0))
    if kind == "full disk":
        full = open("/dev/full", "r+b", buffering=0)
        monkeypatch.setattr(kept, "_file", full)
        kept.add(1, found(1))
        assert kept.pop(1) is None
        full.close()
    elif kind == "cut short":
        kept._file.truncate(10)
        assert kept.pop(0) is None
    else:
        assert kept.pop(0) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows removes the file when it is closed")
def test_the_file_has_no_name(place, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    kept = Kept()
    kept.add(0, found(0))
    assert kept._file is not None and not list(place.iterdir())
    file = kept._file
    del kept
    assert file.closed


KILLED = """
import os, signal
from partzoo.discovery import kept
kept.KEPT_BYTES = 0
class Found:
    bytes = 10
mine = kept.Kept()
mine.add(0, Found())
assert mine._file is not None
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_process_leaves_no_file(tmp_path):
    ran = subprocess.run([sys.executable, "-c", KILLED], env=os.environ | {"TMPDIR": str(tmp_path)})
    assert ran.returncode == -signal.SIGKILL and not list(tmp_path.iterdir())


@pytest.mark.parametrize("room", [(2**27, 2**31), (5000, 2**31), (0, 2**31), (0, 0)])
def test_labels_do_not_depend_on_what_was_kept_and_each_image_is_looked_at_once(place, monkeypatch, room):
    images = list(np.random.default_rng(0).integers(0, 256, (5, 40, 48, 3), dtype=np.uint8))
    expected = partzoo.discover_parts(images, 3, model="toy-vit", background="none")
    encode, looks = ClusteredFinder.encode, []
    monkeypatch.setattr(ClusteredFinder, "encode", lambda *words: looks.append(1) or encode(*words))
    monkeypatch.setattr(module, "KEPT_BYTES", room[0])
    monkeypatch.setattr(module, "SPILLED_BYTES", room[1])
    assert partzoo.discover_parts(images, 3, model="toy-vit", background="none") == expected
    assert len(looks) == (5 if room[1] else 10)
    assert not list(place.iterdir())
