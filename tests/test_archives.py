"""Archives whose members declare more than they may, which are refused before anything is unpacked."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from partzoo import archives
from partzoo.conversion.reading import read_checkpoint
from partzoo.data import tars
from partzoo.data.masks import MaskedSet
from partzoo.data.tars import tar_images
from partzoo.errors import PartzooError, UsageError, WeightsError
from partzoo.parts import files
from partzoo.parts.parts import Parts


def tar_of(path, sizes, mode="w"):
    """A tar of images, which declare sizes but end after the last header."""
    with tarfile.open(path, mode) as tar:
        for number, size in enumerate(sizes):
            member = tarfile.TarInfo(f"images/{number}.png")
            member.size = size
            if size < 2**20:
                tar.addfile(member, io.BytesIO(bytes(size)))
            else:
                tar.fileobj.write(member.tobuf())
    return path


def all_of(names):
    return names


def test_a_tar_may_hold_a_number_of_members(tmp_path, monkeypatch):
    file = tar_of(tmp_path / "a.tar", [10] * 5)
    assert len(tar_images(file, all_of)) == 5
    monkeypatch.setattr(archives, "MAX_MEMBERS", 4)
    with pytest.raises(UsageError, match=r"a\.tar has more than 4 members, the limit"):
        tar_images(file, all_of)
    with pytest.raises(UsageError, match="more than 4 members"):
        MaskedSet(file, "all")


def test_a_tar_may_hold_a_number_of_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED", 45)
    with pytest.raises(UsageError, match="more than 45 bytes together"):
        tar_images(tar_of(tmp_path / "a.tar", [10] * 5), all_of)
    assert len(tar_images(tar_of(tmp_path / "a.tar", [10] * 4), all_of)) == 4


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_members_that_declare_far_more_than_the_archive_has_are_refused_unread(tmp_path, mode, monkeypatch):
    monkeypatch.setattr(tars, "_content", None)
    for size in (2**29, 2**60):
        with pytest.raises(UsageError, match="limit"):
            tar_images(tar_of(tmp_path / "a.tar", [size], mode), all_of)


def test_a_member_may_be_as_large_as_an_image(tmp_path, monkeypatch):
    file = tar_of(tmp_path / "a.tar", [10, 11])
    monkeypatch.setattr(tars, "MAX_BYTES", 10)
    with pytest.raises(UsageError, match=r"images/1\.png has more than 10 bytes"):
        tar_images(file, all_of)
    assert list(tar_images(file, lambda names: names[:1])) == ["images/0.png"]


def test_compressed_members_of_a_checkpoint_are_refused(tmp_path, monkeypatch):
    plain, deflated, shared = tmp_path / "plain.pth", tmp_path / "deflated.pth", tmp_path / "shared.pth"
    torch.save({"x": torch.zeros(1000, 100)}, plain)
    assert read_checkpoint(plain)["x"].shape == (1000, 100)
    monkeypatch.setattr(torch, "load", None)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert deflated.stat().st_size < 10_000
    with pytest.raises(WeightsError, match=r"deflated\.pth has compressed or overlapping members"):
        read_checkpoint(deflated)
    with zipfile.ZipFile(shared, "w") as new:
        new.writestr("archive/data/0", bytes(1000))
        for number in range(1, 5):  # directory entries that all lead to the same bytes
            again = zipfile.ZipInfo(f"archive/data/{number}")
            first = new.infolist()[0]
            again.file_size, again.compress_size, again.CRC = first.file_size, first.compress_size, first.CRC
            again.header_offset = first.header_offset
            new.filelist.append(again)
        new._didModify = True
    assert shared.stat().st_size < 2000
    with pytest.raises(WeightsError, match=r"shared\.pth has compressed or overlapping members"):
        read_checkpoint(shared)


def test_parts_declare_no_more_than_the_largest_image(tmp_path, monkeypatch):
    Parts(np.ones((40, 50), np.uint8), k=1, image=np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.npz")
    assert Parts.load(tmp_path / "a.npz").size == (40, 50)
    monkeypatch.setattr(files, "UNPACKED", 6000)
    with pytest.raises(PartzooError, match="more than 6,000 bytes together"):
        Parts.load(tmp_path / "a.npz")
