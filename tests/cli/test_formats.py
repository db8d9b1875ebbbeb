"""``partzoo discover`` writes what other tools open without another step."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import partzoo
from PIL import Image

from partzoo.parts.formats import FORMATS
from partzoo.parts.parts import Parts

TOY = ("-k", 2, "--model", "toy-vit", "--background", "none")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    return tmp_path


def run(*words):
    ran = partzoo("discover", *words)
    assert ran.code == 0, ran.err
    return ran


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("ending", FORMATS)
def test_each_format_is_written_to_a_file_and_to_a_folder(place, ending):
    pytest.importorskip("pycocotools")
    run("in/a.png", *TOY, "-o", f"one{ending}")
    run("in", *TOY, "-o", "out", "--format", ending, "--no-refine")
    extra = ["data.yaml", "images/a.png", "images/b.png"] if ending == ".txt" else []
    assert files_below("out") == sorted([*extra, *(FORMATS[ending].name.format(name) for name in "ab")])
    if ending != ".png":
        assert Parts.load(f"one{ending}", image="in/a.png").k == 2


def test_a_yolo_data_set_is_continued_and_can_stand_beside_its_images(place):
    pytest.importorskip("pycocotools")
    (place / "in" / "c.png").write_bytes(b"no image")
    assert partzoo("discover", "in", *TOY, "-o", "out", "--format", ".txt").code == 1
    before = {name: os.stat(place / "out" / name).st_mtime_ns for name in ("labels/a.txt", "images/a.png")}
    (place / "in" / "c.png").write_bytes((place / "in" / "a.png").read_bytes())
    ran = run("in", *TOY, "-o", "out", "--format", ".txt")
    assert "2 done before and 1 now" in ran.out
    assert {name: os.stat(place / "out" / name).st_mtime_ns for name in before} == before
    assert files_below("out/labels") == ["a.txt", "b.txt", "c.txt"]
    (place / "in").rename(place / "images")
    content = {file: file.read_bytes() for file in (place / "images").iterdir()}
    run("images", *TOY, "-o", ".", "--format", ".txt")
    assert {file: file.read_bytes() for file in (place / "images").iterdir()} == content
    assert files_below("labels") == ["a.txt", "b.txt", "c.txt"]


def test_coco_has_polygons_on_request_in_every_way_to_write_it(place):
    pytest.importorskip("pycocotools")
    polygons = ("--segmentation", "polygons")
    run("in/a.png", *TOY, "-o", "one.json", *polygons)
    run("in", *TOY, "-o", "all.json", *polygons)
    run("in", *TOY, "-o", "out", "--format", ".json", *polygons)
    for name in ("one.json", "all.json", "out/b.json"):
        annotations = json.loads((place / name).read_text())["annotations"]
        assert annotations and all(isinstance(each["segmentation"], list) for each in annotations)
    run("in", *TOY, "-o", "rle.json")
    assert Parts.load("all.json", image="in/b.png") == Parts.load("rle.json", image="in/b.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("in", "-o", "x.labelme.json"), "is one file, but there are 2 images"),
        (("in", "-o", "x.geojson"), "is one file, but there are 2 images"),
        (("in/a.png", "-o", "x.txt", "--segmentation", "polygons"), "is for COCO (.json), not for YOLO"),
        (("in", "-o", "out", "--segmentation", "polygons"), "is for COCO (.json), not for overlay"),
        (("in/a.png", "-o", "x.jpg"), ".labelme.json, .json, .geojson, .txt"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_work(place, monkeypatch, words, message):
    monkeypatch.setattr("partzoo.discovery.factory.make_finder", None)
    ran = partzoo("discover", *words, *TOY)
    assert ran.code == 2 and message in ran.err and files_below(place) == ["in/a.png", "in/b.png"]
