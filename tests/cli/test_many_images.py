"""Commands over many images: bad images are skipped, and a stopped run continues."""

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import partzoo
from PIL import Image

from partzoo import Parts, features
from partzoo.cli.journal import Journal
from partzoo.images.ahead import AHEAD

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
OPTIONS = ("-k", 3, "--model", "toy-vit", "--background", "none")
FOLDER = (*OPTIONS, "-o", "out", "--format", ".npz")
KILLED = """
import itertools, os, sys
from partzoo.cli import main
from partzoo.parts import files
most, number, save = int(sys.argv.pop(1)), itertools.count(), files.save
def dies(*arguments):
    save(*arguments) if next(number) < most else os._exit(9)
files.save = dies
main()
"""


def draw(folder, names, height=24):
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(random.integers(0, 256, (height, 32, 3), dtype=np.uint8)).save(folder / name)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder ``in`` with four images, of which ``c.png`` is truncated."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "in", ["a.png", "b.png", "c.png", "d.png"])
    cut_short(tmp_path / "in" / "c.png")
    return tmp_path


def cut_short(file):
    file.write_bytes(file.read_bytes()[:600])


def stops_after(monkeypatch, count):
    """Press Ctrl-C just before the next file of parts is written."""
    save, number = Parts.save, itertools.count()

    def stopping(self, path, **options):
        if next(number) >= count:
            raise KeyboardInterrupt
        save(self, path, **options)

    monkeypatch.setattr(Parts, "save", stopping)


def written(folder):
    return {file.name: Parts.load(file) for file in folder.glob("*.npz")}


def finished(folder):
    """Return the files that have a line in the journal."""
    lines = (folder.parent / f"{folder.name}.unfinished" / "done.jsonl").read_text().splitlines()
    return {folder / json.loads(line)["file"] for line in lines}


def failed(folder):
    with open(folder / "failed.csv", newline="") as file:
        return list(csv.reader(file))


def test_a_bad_image_is_passed_over_named_and_counted(place):
    ran = partzoo("discover", "in", *FOLDER, "--json")
    about = json.loads(ran.out)
    assert ran.code == 1 and ran.err.count("in/c.png") == 1
    assert "1 of the 4 images could not be used and was skipped. It is listed in 'out/failed.csv'." in ran.err
    assert sorted(written(place / "out")) == ["a.npz", "b.npz", "d.npz"]
    assert [each["source"] for each in about["images"]] == ["in/a.png", "in/b.png", "in/d.png"]
    assert [each["path"] for each in about["failed"]] == ["in/c.png"]
    assert failed(place / "out") == [["path", "reason"], ["in/c.png", about["failed"][0]["reason"]]]


def test_a_bad_image_changes_nothing_in_the_others(place):
    partzoo("discover", "in", *FOLDER)
    partzoo("discover", "in/a.png", "in/b.png", "in/d.png", *OPTIONS, "-o", "good", "--format", ".npz")
    assert written(place / "out") == written(place / "good") != {}


def test_strict_ends_at_the_first_bad_image(place):
    ran = partzoo("discover", "in", *FOLDER, "--strict")
    assert ran.code == 1 and "Error: in/c.png is damaged" in ran.err
    assert [file.name for file in place.iterdir()] == ["in"]  # no empty folder is left
    partzoo("discover", "in", *OPTIONS, "-o", "deep/er/out", "--strict")
    assert [file.name for file in place.iterdir()] == ["in"]


def test_a_bad_image_by_itself_is_an_error(place):
    ran = partzoo("discover", "in/c.png", *OPTIONS, "-o", "c.npz", "--json")
    assert ran.code == 1 and "Error: in/c.png is damaged" in ran.err and not ran.out
    ran = partzoo("features", "in/c.png", "--model", "toy-vit", "-o", "c.npz")
    assert ran.code == 1 and "Error: in/c.png is damaged" in ran.err
    assert [file.name for file in place.iterdir()] == ["in"]


def test_images_that_are_all_bad_are_one_error(place):
    for name in "abd":
        cut_short(place / "in" / f"{name}.png")
    ran = partzoo("discover", "in", *FOLDER)
    assert ran.code == 1 and "None of the 4 images to learn the parts from can be read." in ran.err
    assert len(failed(place / "out")) == 5
    ran = partzoo("features", "in", "--model", "toy-vit", "-o", "f.npz", "--json")
    assert ran.code == 1 and json.loads(ran.out)["images"] == 0 and not (place / "f.npz").exists()


def test_a_mask_of_another_size_fails_its_image_alone(place):
    (place / "masks").mkdir()
    Image.new("L", (9, 9), 255).save(place / "masks" / "a.png")
    ran = partzoo("discover", "in", *FOLDER, "--mask", "masks")
    assert ran.code == 1 and "Skipped: in/a.png: The mask is (9, 9)" in ran.err
    assert sorted(written(place / "out")) == ["b.npz", "d.npz"]


def test_one_coco_file_holds_the_good_images(place):
    pytest.importorskip("pycocotools")
    ran = partzoo("discover", "in", *OPTIONS, "-o", "parts.json", "--json")
    coco = json.loads((place / "parts.json").read_text())
    assert ran.code == 1 and json.loads(ran.out)["failed"]
    assert [(each["id"], each["file_name"]) for each in coco["images"]] == [
        (1, "in/a.png"),
        (2, "in/b.png"),
        (3, "in/d.png"),
    ]
    assert [each["id"] for each in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    assert {each["image_id"] for each in coco["annotations"]} == {1, 2, 3}
    assert not (place / "parts.json.unfinished").exists()


@pytest.mark.parametrize("output", [("parts.json",), ("out", "--format", ".json")])
def test_what_coco_needs_is_checked_before_the_work(place, monkeypatch, output):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    monkeypatch.setattr("partzoo.discovery.factory.make_finder", None)  # no model is loaded
    ran = partzoo("discover", "in", *OPTIONS, "-o", *output)
    assert ran.code == 1 and 'pip install "partzoo[coco]"' in ran.err


def test_a_run_stopped_twice_equals_an_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"{number:02}.png" for number in range(36)]
    draw(tmp_path / "in", names)
    for name in names[3::11]:
        cut_short(tmp_path / "in" / name)
    whole = partzoo("discover", "in", *OPTIONS, "-o", "whole", "--format", ".npz", "--json")

    with monkeypatch.context() as patch:
        stops_after(patch, 10)
        assert partzoo("discover", "in", *FOLDER).code == 130
    assert len(written(tmp_path / "out")) == 10
    first = finished(tmp_path / "out")
    assert 10 - AHEAD < len(first) <= 10  # later ones may have a file but no line
    words = ["discover", "in", *map(str, FOLDER), "--resume"]
    assert subprocess.run([sys.executable, "-c", KILLED, "12", *words]).returncode == 9
    assert finished(tmp_path / "out") > first
    times = {file: file.stat().st_mtime_ns for file in finished(tmp_path / "out")}
    last = partzoo("discover", "in", *FOLDER, "--resume", "--json")

    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    assert written(tmp_path / "out") == written(tmp_path / "whole")
    assert len(written(tmp_path / "out")) == 33 and last.code == whole.code == 1
    assert json.loads(last.out.replace("out/", "whole/")) == json.loads(whole.out)
    assert failed(tmp_path / "out") == failed(tmp_path / "whole")


def test_one_coco_file_of_a_resumed_run_is_that_of_an_undisturbed_one(place, monkeypatch):
    pytest.importorskip("pycocotools")
    partzoo("discover", "in", *OPTIONS, "-o", "whole.json")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", lambda *_: _stop())
        assert partzoo("discover", "in", *OPTIONS, "-o", "parts.json").code == 130
    assert not (place / "parts.json").exists()
    assert partzoo("discover", "in", *OPTIONS, "-o", "parts.json", "--resume").code == 1
    assert (place / "parts.json").read_text() == (place / "whole.json").read_text()


def _stop():
    raise KeyboardInterrupt


def test_a_mended_image_is_done_by_the_next_resume(place):
    partzoo("discover", "in", *FOLDER)
    before = written(place / "out")
    draw(place / "in", ["c.png"])
    ran = partzoo("discover", "in", *FOLDER, "--resume", "--json")
    assert ran.code == 0 and not json.loads(ran.out)["failed"] and len(json.loads(ran.out)["images"]) == 4
    assert not (place / "out" / "failed.csv").exists()
    after = written(place / "out")
    assert after.keys() - before.keys() == {"c.npz"} and before.items() <= after.items()


def test_a_file_that_is_gone_and_a_line_that_is_half_written_are_done_again(place):
    partzoo("discover", "in", *FOLDER)
    before = written(place / "out")
    (place / "out" / "a.npz").unlink()
    journal = place / "out.unfinished" / "done.jsonl"
    journal.write_text(journal.read_text()[:-20])
    partzoo("discover", "in", *FOLDER, "--resume")
    assert written(place / "out") == before
    assert all(json.loads(line)["about"] for line in journal.read_text().splitlines())


def test_a_resumed_run_says_what_was_done_before(place):
    partzoo("discover", "in", *FOLDER)
    ran = partzoo("discover", "in", *FOLDER, "--resume")
    assert ran.out.startswith("3 images (all done before), ")
    draw(place / "in", ["c.png"])
    ran = partzoo("discover", "in", *FOLDER, "--resume")
    assert ran.out.startswith("4 images (3 done before and 1 now), ") and "from the beginning" not in ran.err
    ran = partzoo("discover", "in", *FOLDER, "--resume")
    assert (
        ran.out.startswith("4 images, ")
        and "out has no unfinished run to continue: the run starts from the beginning." in ran.err
    )


def test_other_settings_are_refused_and_the_results_kept(place):
    partzoo("discover", "in", *FOLDER)
    before = written(place / "out")
    for resume in (("--resume",), ()):
        ran = partzoo("discover", "in", *FOLDER, "-k", 2, *resume)
        assert ran.code == 2 and "'out' has unfinished results of other settings (k was 3, is 2)" in ran.err
        assert written(place / "out") == before
    assert partzoo("discover", "in", *FOLDER, "--resume").code == 1


def test_a_vocabulary_of_the_same_name_with_other_content_is_another_setting(place):
    words = ("--vocabulary", "v.safetensors", "-o", "out", "--format", ".npz")
    saved = partzoo("discover", "in", *OPTIONS, "--save-vocabulary", "v.safetensors")
    assert "Written: v.safetensors" in saved.out and "Nothing was written" not in saved.out
    partzoo("discover", "in", *words)
    assert partzoo("discover", "in", *words, "--resume").code == 1
    partzoo("discover", "in", *OPTIONS, "--seed", 1, "--save-vocabulary", "v.safetensors")
    assert "vocabulary was v.safetensors sha256:" in partzoo("discover", "in", *words, "--resume").err


def test_the_same_command_continues_and_can_start_over(place):
    partzoo("discover", "in", *FOLDER)
    times = {file: file.stat().st_mtime_ns for file in (place / "out").glob("*.npz")}
    ran = partzoo("discover", "in", *FOLDER)
    assert "out has results of 3 images with the same settings, which are kept (--no-resume starts over)." in ran.err
    assert {file: file.stat().st_mtime_ns for file in times} == times
    ran = partzoo("discover", "in", *FOLDER, "--no-resume")
    assert "out h" not in ran.err and "done before" not in ran.out
    assert all(file.stat().st_mtime_ns != time for file, time in times.items())
    assert partzoo("discover", "in", *FOLDER, "-k", 2, "--no-resume").code == 1
    assert {parts.k for parts in written(place / "out").values()} == {2}


def test_a_command_that_is_refused_leaves_earlier_results_to_resume(place):
    partzoo("discover", "in", *FOLDER)
    assert partzoo("discover", "in", *FOLDER, "-k", "own").code == 2
    assert failed(place / "out")
    ran = partzoo("discover", "in", *FOLDER, "--resume", "--json")
    assert ran.code == 1 and len(json.loads(ran.out)["images"]) == 3


@pytest.mark.parametrize("words", [("in/a.png", "-o", "a.npz"), ("in",)])
def test_resume_is_refused_where_nothing_is_kept(place, words):
    ran = partzoo("discover", *words, *OPTIONS, "--resume")
    assert ran.code == 2 and "--resume needs many images and an output" in ran.err


def test_features_of_the_good_images_are_written(place):
    ran = partzoo("features", "in", "--model", "toy-vit", "-o", "f.npz", "--json")
    about = json.loads(ran.out)
    assert (
        ran.code == 1
        and ran.err.count("in/c.png") == 1
        and "1 of the 4 images could not be used and was skipped." in ran.err
    )
    assert [each["path"] for each in about["failed"]] == ["in/c.png"]
    with np.load(place / "f.npz") as file:
        assert file["names"].tolist() == about["names"] == ["in/a.png", "in/b.png", "in/d.png"]
        assert sorted(file) == ["dense.0", "dense.1", "dense.2", "format", "names", "pooled", "size"]
    strict = partzoo("features", "in", "--model", "toy-vit", "-o", "g.npz", "--strict")
    assert strict.code == 1 and "Error: in/c.png is damaged" in strict.err and not (place / "g.npz").exists()


def test_features_go_on_where_they_stopped(place, monkeypatch):
    words = ("features", "in", "--model", "toy-vit")
    partzoo(*words, "-o", "whole.npz")
    compute, asked = features._features, []

    def counting(image, *options):
        if image.name.endswith("d.png") and not stopped:
            stopped.append(_stop)
            _stop()
        asked.append(image.name)
        return compute(image, *options)

    stopped = []
    monkeypatch.setattr(features, "_features", counting)
    assert partzoo(*words, "-o", "f.npz").code == 130
    assert partzoo(*words, "-o", "f.npz", "--size", 32, "--resume").code == 2
    ran = partzoo(*words, "-o", "f.npz", "--resume")
    assert ran.code == 1 and "channels of 3 images (2 done before and 1 now). Written: f.npz" in ran.out
    assert sorted(asked) == ["in/a.png", "in/b.png", "in/d.png"]
    with np.load("f.npz") as resumed, np.load("whole.npz") as whole:
        assert all(np.array_equal(resumed[name], whole[name]) for name in whole)
    assert not (place / "f.npz.unfinished").exists()


def test_images_of_different_kinds_are_noticed(tmp_path):
    ran = partzoo("discover", EXAMPLES, "-o", tmp_path / "out")
    assert ran.code == 0 and "images have one part each, which happens if they show" in ran.err


def test_images_of_one_kind_are_not_taken_for_different_ones(tmp_path):
    with Image.open(EXAMPLES / "ibis.jpg") as image:
        for turn in range(3):
            image.rotate(5 * turn).save(tmp_path / f"{turn}.png")
    ran = partzoo("discover", tmp_path, "-k", 4, "-o", tmp_path / "out")
    assert ran.code == 0 and "different kinds" not in ran.err
