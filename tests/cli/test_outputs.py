"""Files that commands write have names that say what they are of, and never replace what is read."""

import os
import sys

import numpy as np
import pytest
from helpers.command_line import partzoo
from PIL import Image

from partzoo.cli.part_files import file_names
from partzoo.errors import UsageError
from partzoo.locks import locked
from partzoo.places import check_apart, made_folder

TOY = ("-k", 2, "--model", "toy-vit", "--background", "none")


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["in/a.jpg", "in/b.png"], ["a", "b"]),
        (["in/a.jpg", "in/a.jpeg", "in/b.png"], ["a.jpg", "a.jpeg", "b"]),
        (["x/a.jpg", "y/a.jpg"], ["x-a", "y-a"]),
        (["x/1/a.jpg", "y/1/a.jpg", "/z/1/a.jpg"], ["x-1-a", "y-1-a", "z-1-a"]),
        (["in/A.jpg", "in/a.jpg"], ["in-A", "in-a-2"]),
        (["a.jpg", "a.jpg", "a.jpg"], ["a.jpg", "a.jpg-2", "a.jpg-3"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg", "a.png", "a.jpg.png"]),
        (["image 1"], ["image 1"]),
        (["é" * 120 + "1.jpg", "é" * 120 + "2.jpg"], ["é" * 117, "é" * 117 + "-2"]),
    ],
)
def test_files_of_one_name_are_named_by_what_distinguishes_them(sources, names):
    assert file_names(sources) == names
    assert len({name.casefold() for name in names}) == len(names)


def test_the_work_for_names_grows_with_their_number():
    def lines_run(count):
        run = 0

        def trace(*_):
            nonlocal run
            run += 1
            return trace

        sources = [f"{number}/frame.jpg" for number in range(count)] + ["a/frame.jpg"] * count
        sys.settrace(trace)
        try:
            names = file_names(sources)
        finally:
            sys.settrace(None)
        assert len(set(names)) == 2 * count
        return run

    assert lines_run(400) < 4.5 * lines_run(100)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    for name in ("v.pt2", "v.bin"):
        (tmp_path / name).write_bytes(b"precious")
    (tmp_path / "link").symlink_to("in", target_is_directory=True)
    (tmp_path / "of-b.png").symlink_to("in/b.png")
    os.link(tmp_path / "in" / "a.png", tmp_path / "same.png")
    return tmp_path


def contents(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        ("discover", "in", *TOY, "-o", "in"),
        ("discover", "in", *TOY, "-o", "in/../in"),
        ("discover", "in", *TOY, "-o", "link"),
        ("discover", "in/a.png", *TOY, "-o", "in/a.png"),
        ("discover", "in/a.png", *TOY, "-o", "same.png"),
        ("discover", "of-b.png", *TOY, "-o", "in/b.png"),
        ("discover", "in/a.png", *TOY, "--mask", "in/b.png", "-o", "in/b.png"),
        ("discover", "in", *TOY, "--mask", "link", "-o", "out", "--save-vocabulary", "in/a.png"),
        ("swap", "in/a.png", "in/b.png", "-o", "in/b.png"),
        ("swap", "in/a.png", "in/b.png", "-o", "link/a.png"),
        ("attention", "in/a.png", "-o", "link/a.png"),
        ("reconstruct", "in/a.png", "-o", "in/a.png"),
        ("export", "--vocabulary", "v.pt2", "--background", "none", "--format", "torch-export", "-o", "link/../v.pt2"),
        ("export", "v.bin", "--format", "openvino", "-o", "v.xml"),
    ],
)
def test_an_output_never_replaces_what_is_read(place, monkeypatch, words):
    monkeypatch.setattr("partzoo.discovery.factory.make_finder", None)  # no model is loaded
    before = contents(place)
    ran = partzoo(*words)
    assert ran.code == 2 and "would replace" in ran.err, ran.err
    assert contents(place) == before


@pytest.mark.parametrize(
    "words",
    [
        ("discover", "in", *TOY, "-o", "p.json", "--save-vocabulary", "link/../p.json"),
        ("discover", "in/a.png", *TOY, "-o", "p.npz", "--save-vocabulary", "p.npz"),
        ("discover", "in", *TOY, "--format", ".npz", "-o", "out", "--save-vocabulary", "out/a.npz"),
        ("report", "in", *TOY, "-o", "r.html", "--save-vocabulary", "r.html"),
    ],
)
def test_two_outputs_have_two_places(place, monkeypatch, words):
    monkeypatch.setattr("partzoo.discovery.factory.make_finder", None)  # no model is loaded
    before = contents(place)
    ran = partzoo(*words)
    assert ran.code == 2 and "is named for two outputs" in ran.err, ran.err
    assert contents(place) == before


def test_features_and_figures_do_not_replace_what_is_read(place):
    (place / "in" / "a.npz").write_bytes((place / "in" / "a.png").read_bytes())
    (place / "in" / "figure-5.png").write_bytes((place / "in" / "a.png").read_bytes())
    before = contents(place)
    for words in (("features", "in/a.npz", "-o", "link/a.npz"), ("relate", "in/figure-5.png", "-o", "in")):
        ran = partzoo(*words)
        assert ran.code == 2 and "would replace" in ran.err, ran.err
    assert contents(place) == before


@pytest.mark.parametrize(
    "words",
    [
        ("features", "in/a.png", "--model", "model", "-o", "model/model.safetensors"),
        ("features", "in/a.png", "--model", "local-dir:model", "-o", "in/../model/model.safetensors"),
        ("discover", "in", "--model", "to-model", "-o", "out", "--save-vocabulary", "model/model.safetensors"),
        ("discover", "in/a.png", "--background", "model", "-o", "model/figure.png"),
        ("relate", "in/a.png", "--model", "model/", "-o", "to-model"),
        ("swap", "in/a.png", "in/b.png", "--model", "model", "-o", "model/figure.png"),
        ("attention", "in/a.png", "--model", "model", "-o", "model/figure.png"),
    ],
)
def test_an_output_never_replaces_a_file_in_the_folder_of_a_model(place, monkeypatch, words):
    monkeypatch.setattr("partzoo.models.loading.load", None)
    (place / "model").mkdir()
    (place / "to-model").symlink_to("model")
    for name in ("model.safetensors", "config.json", "figure.png", "figure-4.png"):
        (place / "model" / name).write_bytes(b"precious")
    before = contents(place)
    ran = partzoo(*words)
    assert ran.code == 2 and "would replace" in ran.err, ran.err
    assert contents(place) == before


@pytest.mark.parametrize("text", [b"path,reason,who\n1,2,me\n", b"my notes", b"\xff\xfe"])
def test_a_list_of_failures_replaces_no_other_file(place, text):
    (place / "out").mkdir()
    (place / "out" / "failed.csv").write_bytes(text)
    before = contents(place)
    for words in (("discover", "in", *TOY, "-o", "out"), ("convert", "in/a.png", "in/b.png", "-o", "out")):
        ran = partzoo(*words)
        assert ran.code == 2 and "'out/failed.csv' is not a list of what partzoo has skipped" in ran.err, ran.err
    assert contents(place) == before


def test_a_second_writer_of_any_output_is_refused(place, monkeypatch):
    for name in ("partzoo.swapping.swap_parts", "partzoo.discovery.factory.make_finder"):
        monkeypatch.setattr(name, None)  # nothing is computed
    (place / "figures").mkdir()
    for words, path in (
        (("swap", "in/a.png", "in/b.png", "-o", "link/new.png"), "in/new.png"),
        (("relate", "in/a.png", "-o", "figures"), "in/../figures"),
        (("discover", "in/a.png", *TOY, "-o", "new.npz"), "new.npz"),
        (("discover", "in", *TOY, "--save-vocabulary", "v.safetensors"), "v.safetensors"),
        (("bench", "-o", "bench.json"), "bench.json"),
    ):
        with locked(path):
            ran = partzoo(*words)
        assert ran.code == 2 and "is being written by process" in ran.err, ran.err


def test_other_files_in_the_folder_of_the_images_can_be_written(place):
    ran = partzoo("discover", "in", *TOY, "-o", "in", "--format", ".npz")
    assert ran.code == 0, ran.err
    assert sorted(file.name for file in (place / "in").iterdir()) == ["a.npz", "a.png", "b.npz", "b.png"]


def test_places_that_are_no_files_are_apart(tmp_path):
    check_apart([None, tmp_path / "new"], [None, "https://example.org/a.png", "efficientnet-lite0", "a\0b"])
    with pytest.raises(UsageError, match="would replace"):
        check_apart([tmp_path], [tmp_path / "." / ""])


def test_a_folder_is_removed_unless_something_is_in_it(tmp_path):
    with made_folder(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    with pytest.raises(KeyError), made_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept.txt").touch()
        raise KeyError
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["kept.txt"]
    with made_folder(tmp_path / "a"), made_folder(None):
        pass
    assert (tmp_path / "a").is_dir()
