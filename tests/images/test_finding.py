"""The images that folders and patterns match."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from partzoo.data.folders import load_images
from partzoo.data.masks import MaskedSet
from partzoo.errors import ImageError
from partzoo.images.opening import open_image, open_images


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), "red").save(path)


def found(source, root: Path) -> list[str]:
    return [Path(os.path.relpath(path, root)).as_posix() for path in open_images(source)[0].sources]


def test_linked_folders_and_files_are_read_and_dangling_links_named(tmp_path):
    put(*(tmp_path / f"disk/{name}.png" for name in "abc"), tmp_path / "herons/own.png", tmp_path / "else/d.png")
    herons = tmp_path / "herons"
    (herons / "linked").symlink_to(tmp_path / "disk")
    (herons / "c.png").symlink_to(tmp_path / "disk/c.png")
    (herons / "d.png").symlink_to("../else/d.png")
    (herons / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (herons / "itself").symlink_to(herons / "itself")
    with pytest.warns(UserWarning, match=r"do not exist are left out: '\S+gone\.png', '\S+itself'\.$") as told:
        assert found(herons, herons) == ["d.png", "linked/a.png", "linked/b.png", "linked/c.png", "own.png"]
    assert len(told) == 1
    (tmp_path / "whole").symlink_to(herons)
    with pytest.warns(UserWarning, match="whole/gone"):
        assert len(open_images(tmp_path / "whole")[0]) == 5


@pytest.fixture
def loops(tmp_path):
    """Make two folders of two images, with links upwards, across and to themselves."""
    put(*(tmp_path / f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(2)))
    for kind, other in (("cat", "dog"), ("dog", "cat")):
        for i in range(3):
            (tmp_path / kind / f"up{i}").symlink_to(tmp_path)
        (tmp_path / kind / f"to-{other}").symlink_to(f"../{other}")
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "**", "**/*.png", "*/*.png", "**/**/*.png", "cat/up0/**/*.png"])
def test_loops_of_links_end_and_each_image_counts_once(loops, pattern):
    names = found(loops / pattern if not pattern else str(loops / pattern), loops)
    assert len(names) == 4
    if not pattern.startswith("cat"):
        assert names == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]


def test_a_pattern_reaches_images_by_the_links_that_it_names(loops):
    assert found(str(loops / "**/to-cat/*.png"), loops) == ["dog/to-cat/0.png", "dog/to-cat/1.png"]
    assert found(str(loops / "cat/../d?g/[0].png"), loops) == ["dog/0.png"]


def test_a_folder_that_cannot_be_read_is_named_once(tmp_path, monkeypatch):
    put(tmp_path / "a/1.png", *(tmp_path / f"shut{i}/1.png" for i in range(5)))
    scandir = os.scandir

    def guarded(path):
        if Path(path).name.startswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    for source in (tmp_path, str(tmp_path / "**/*.png"), str(tmp_path / "*/*.png")):
        with pytest.warns(UserWarning, match=r"shut\d' \(Permission denied\).* and 2 more") as told:
            assert found(source, tmp_path) == ["a/1.png"]
        assert len(told) == 1


@pytest.mark.parametrize("name", ["[2024]", "a*", "who?", "**"])
def test_a_folder_with_the_very_name_comes_before_what_a_pattern_matches(tmp_path, monkeypatch, name):
    put(tmp_path / name / "a.jpg", tmp_path / "2/other.jpg", tmp_path / "ab/other.jpg", tmp_path / "whom/other.jpg")
    monkeypatch.chdir(tmp_path)
    for source in (f"{name}/*.jpg", Path(name, "*.jpg"), str(tmp_path / name / "*.jpg"), name):
        assert found(source, tmp_path) == [f"{name}/a.jpg"]
    put(tmp_path / "sub/[1].jpg", tmp_path / "sub/1.jpg")
    assert found("s?b/[1].jpg", tmp_path) == ["sub/[1].jpg"]
    assert found("[3a][b]/*.jpg", tmp_path) == ["ab/other.jpg"]


def test_the_home_folder_and_names_that_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    put(tmp_path / "birds/a.png", tmp_path / "work/~b.png")
    for source in ("~", "~/birds", "~/birds/*.png", "~/**/a.png", Path("~/birds")):
        assert "birds/a.png" in found(source, tmp_path)
    assert open_image("~/birds/a.png").size == open_images("~/birds/a.png")[0][0].size == (3, 4)
    assert len(load_images("~/birds", "val")) == 1
    monkeypatch.chdir(tmp_path / "work")
    assert open_image("~b.png").size == (3, 4)
    assert found("~*.png", tmp_path) == ["work/~b.png"]
    with pytest.raises(ImageError, match="No such file"):
        open_image("~no-such-user/a.png")


def test_training_sees_the_classes_of_linked_folders(tmp_path):
    for kind in "abc":
        put(*(tmp_path / f"disk/{kind}/{i}.png" for i in range(4)))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a").symlink_to(tmp_path / "disk/a")
    (tmp_path / "set/b").symlink_to("../disk/b")
    put(*(tmp_path / f"set/c/{i}.png" for i in range(4)))
    images = load_images(tmp_path / "set", side=4)
    assert images.classes == ["a", "b", "c"]
    assert torch.bincount(images.labels).tolist() == [3, 4, 3]
    (tmp_path / "linked").symlink_to(tmp_path / "set")
    assert load_images(tmp_path / "linked", side=4).classes == ["a", "b", "c"]


def test_an_image_counts_for_the_class_of_its_own_folder(tmp_path):
    put(*(tmp_path / f"{kind}/{i}.png" for kind in "ab" for i in range(3)))
    (tmp_path / "a/like").symlink_to(tmp_path / "b")
    images = load_images(tmp_path, side=4)
    assert torch.bincount(images.labels).tolist() == [2, 3]


def test_sets_with_masks_may_be_linked(tmp_path):
    put(tmp_path / "disk/photographs/a.jpg", tmp_path / "disk/photographs/b.jpg")
    (tmp_path / "disk/masks").mkdir()
    Image.new("L", (4, 3), 255).save(tmp_path / "disk/masks/a.png")
    (tmp_path / "disk/masks/b.png").symlink_to("a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/images").symlink_to(tmp_path / "disk/photographs")
    (tmp_path / "set/masks").symlink_to(tmp_path / "disk/masks")
    masked = MaskedSet(tmp_path / "set")
    assert masked.names == ["a", "b"] and masked[1].mask.all()


def test_folders_without_links_say_nothing(tmp_path):
    put(tmp_path / "a/1.png", tmp_path / ".hidden/2.png", tmp_path / ".3.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(tmp_path, tmp_path) == found(str(tmp_path / "**"), tmp_path) == ["a/1.png"]
        assert found(str(tmp_path / ".h*/*.png"), tmp_path) == [".hidden/2.png"]
