"""``partzoo discover`` with a known foreground, and with names that look like formats."""

import numpy as np
import pytest
from helpers.command_line import partzoo
from PIL import Image

from partzoo import Parts

OPTIONS = ("-k", 2, "--model", "toy-vit", "--background", "none")


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("a", "b", "x.index"):
        Image.fromarray(random.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(tmp_path / "in" / f"{name}.png")
    mask = np.zeros((40, 56), np.uint8)
    mask[:, :20] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "b.png")
    return tmp_path


@pytest.mark.parametrize("mask", ["masks/b.png", "0,0,20,40", "0.0, 0.2,20.0,40.0"])
def test_a_mask_or_a_box_is_the_foreground(folder, monkeypatch, mask):
    monkeypatch.chdir(folder)
    partzoo("discover", "in/a.png", *OPTIONS, "--mask", mask, "-o", "a.npz")
    labels = Parts.load("a.npz").labels
    assert (labels[:, :20] > 0).all() and not labels[:, 20:].any()


@pytest.mark.parametrize("mask", ["1,2,3", "1,2,nan,4"])
def test_numbers_that_are_no_box_are_refused_as_a_box(folder, monkeypatch, mask):
    monkeypatch.chdir(folder)
    refused = partzoo("discover", "in/a.png", *OPTIONS, "--mask", mask)
    assert refused.code == 2 and f"--mask {mask} is not a box of four finite numbers" in refused.err


def test_a_folder_of_masks_serves_the_images_of_the_same_names(folder, monkeypatch):
    monkeypatch.chdir(folder)
    partzoo("discover", "in", *OPTIONS, "--mask", "masks", "-o", "out", "--format", ".npz")
    assert not Parts.load("out/b.npz").labels[:, 20:].any() and Parts.load("out/a.npz").labels.all()
    (folder / "empty").mkdir()
    refused = partzoo("discover", "in", *OPTIONS, "--mask", "empty", "-o", "out")
    assert refused.code == 2 and "holds no file with the name of one of the images" in refused.err


def test_the_format_option_decides_whatever_an_image_is_called(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for form, mode in ((".png", "RGB"), (".index.png", "P")):
        partzoo("discover", "in", *OPTIONS, "-o", f"out{form}-files", "--format", form)
        for name in ("a", "x.index"):
            with Image.open(f"out{form}-files/{name}{form}") as written:
                assert written.mode == mode


def test_own_parts_need_a_part_model(folder, monkeypatch):
    monkeypatch.chdir(folder)
    refused = partzoo("discover", "in/a.png", "-k", "own", "--model", "toy-vit")
    assert refused.code == 2 and "-k own is for part models" in refused.err
