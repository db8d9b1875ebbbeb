"""Commands that work on several images at a time write what they write one by one."""

import json
import threading
import time

import numpy as np
import pytest
from helpers.command_line import partzoo
from PIL import Image

from partzoo import Parts
from partzoo.cli.journal import Journal

OPTIONS = ("-k", 3, "--model", "toy-vit", "--background", "none")
COUNT, BAD = 14, 5


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder ``in`` with images, one of which is damaged."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(COUNT):
        pixels = draw.integers(0, 256, (*draw.integers(24, 40, 2), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number:02}.png")
    bad = tmp_path / "in" / f"{BAD:02}.png"
    bad.write_bytes(bad.read_bytes()[:600])
    return tmp_path


@pytest.fixture
def with_threads(monkeypatch):
    """A function that sets the number of threads that work on images."""
    return lambda count: monkeypatch.setattr("partzoo.models.base.worker_threads", lambda: count)


def contents(output):
    files = sorted(output.rglob("*.*")) if output.is_dir() else [output]
    return {file.name if output.is_dir() else "": file.read_bytes() for file in files}


def slow_first(monkeypatch):
    """Let earlier images take longer to write than later ones; return the threads that write."""
    save, threads = Parts.save, set()

    def saving(self, path, **options):
        threads.add(threading.get_ident())
        time.sleep(0.02 * (self.size[0] % 3))
        save(self, path, **options)

    monkeypatch.setattr(Parts, "save", saving)
    return threads


@pytest.mark.parametrize("out", ["{}", "{}.json", "{}-npz"])
def test_files_and_journals_are_those_of_one_thread(place, with_threads, monkeypatch, out):
    if out.endswith(".json"):
        pytest.importorskip("pycocotools")
    names, add = [], Journal.add
    monkeypatch.setattr(Journal, "add", lambda self, *words: names.append(words[0]) or add(self, *words))
    writers, reports, options = slow_first(monkeypatch), {}, ("--format", ".npz") if "npz" in out else ()
    for name, threads in (("one", 1), ("all", 4)):
        with_threads(threads)
        ran = partzoo("discover", "in", *OPTIONS, "-o", out.format(name), *options, "--json")
        assert ran.code == 1 and ran.err.count("Skipped: in/05.png") == 1
        reports[name] = json.loads(ran.out.replace(f'"{name}', '"x'))
    assert contents(place / out.format("one")) == contents(place / out.format("all"))
    assert reports["one"] == reports["all"]
    expected = [f"in/{number:02}.png" for number in range(COUNT) if number != BAD]
    assert names == 2 * expected
    assert out.endswith(".json") or len(writers) > 2  # the main thread writes nothing


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_features_are_those_of_one_thread(place, with_threads, ending):
    for name, threads in (("one", 1), ("all", 4)):
        with_threads(threads)
        assert partzoo("features", "in", "--model", "toy-vit", "-o", f"{name}{ending}").code == 1
    assert (place / f"one{ending}").read_bytes() == (place / f"all{ending}").read_bytes()


def test_a_run_that_is_stopped_continues(place, with_threads, monkeypatch):
    partzoo("discover", "in", *OPTIONS, "-o", "whole", "--format", ".npz")
    with_threads(4)
    before, save = set(threading.enumerate()), Parts.save

    def stopping(self, path, **options):
        if self.source.endswith("08.png"):
            raise KeyboardInterrupt
        save(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "save", stopping)
        assert partzoo("discover", "in", *OPTIONS, "-o", "out", "--format", ".npz").code == 130
    assert not set(threading.enumerate()) - before
    files = list((place / "out").glob("*.npz"))
    lines = (place / "out.unfinished" / "done.jsonl").read_text().splitlines()
    assert 7 <= len(lines) <= len(files) < COUNT - 1
    assert all((place / json.loads(line)["about"]["output"]).exists() for line in lines)
    assert partzoo("discover", "in", *OPTIONS, "-o", "out", "--format", ".npz", "--resume").code == 1
    assert contents(place / "out") == contents(place / "whole")


def test_an_error_while_writing_ends_the_run(place, with_threads):
    with_threads(4)
    (place / "out").mkdir()
    (place / "out" / "03.npz").mkdir()
    ran = partzoo("discover", "in", *OPTIONS, "-o", "out", "--format", ".npz")
    assert ran.code == 1 and "Cannot write 'out/03.npz'" in ran.err
    lines = (place / "out.unfinished" / "done.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["in/00.png", "in/01.png", "in/02.png"]
