"""Runs over 300 images, five of them bad, that are killed at random moments and resumed."""

import multiprocessing
import random
import time

import numpy as np
import pytest
from helpers.command_line import partzoo_in
from PIL import Image

from partzoo.images.ahead import AHEAD

COUNT, BAD = 300, range(7, 300, 60)
DISCOVER = ("discover", "in", "-k", "3", "--model", "toy-vit", "--background", "none", "-o")
FEATURES = ("features", "in", "--model", "toy-vit", "-o")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("killed"), np.random.default_rng(0)
    (folder / "in").mkdir()
    for number in range(COUNT):
        file = folder / "in" / f"{number:03}.png"
        Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(file)
        if number in BAD:
            file.write_bytes(file.read_bytes()[:600])
    return folder


def start(place, words):
    """A process of the command, from a server that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.command_line", "partzoo.discovery.pipeline", "partzoo.features"])
    process = context.Process(target=partzoo_in, args=(place, words))
    process.start()
    return process


def ended(process):
    process.join()
    return process.exitcode


def done(journal):
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def kill_after(place, words, journal, count, delay):
    """Kill -9 a run some time after it has done as many images; the number of those that were done."""
    process = start(place, words)
    while done(journal) < count and process.is_alive():
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    assert ended(process) == -9, f"{words} ended by itself"
    return done(journal)


def contents(output):
    files = sorted(output.iterdir()) if output.is_dir() else [output]
    return {file.name if output.is_dir() else "": file.read_bytes() for file in files}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "output", "options"),
    [
        (DISCOVER, "overlays", ("--scale", "1")),
        (DISCOVER, "arrays", ("--format", ".npz")),
        (DISCOVER, "{}.json", ()),
        (FEATURES, "{}.npz", ()),
    ],
    ids=["folder", "folder of NPZ", "one JSON", "features"],
)
def test_a_run_that_is_killed_twice_equals_an_undisturbed_one(place, command, output, options):
    if output.endswith(".json"):
        pytest.importorskip("pycocotools")
    whole, killed = (output.format(name) if "{}" in output else f"{name}-{output}" for name in ("whole", "killed"))
    assert ended(start(place, (*command, whole, *options))) == 1
    seed = random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)
    journal = place / f"{killed}.unfinished" / "done.jsonl"
    counts = []
    for resume, most in (((), COUNT // 2), (("--resume",), COUNT - 60)):
        count = draw.randrange(counts[-1] if counts else 0, most)
        words = (*command, killed, *options, *resume)
        counts.append(kill_after(place, words, journal, count, draw.uniform(0, 0.05)))
    times = {file: file.stat().st_mtime_ns for file in place.glob(f"{killed}/*.*g")}
    assert ended(start(place, (*command, killed, *options, "--resume"))) == 1
    print(f"{killed}: seed {seed}, killed with {counts} of {COUNT - len(BAD)} images done")
    assert contents(place / killed) == contents(place / whole)
    if (place / killed).is_dir():
        assert len(contents(place / killed)) == COUNT - len(BAD) + 1  # with failed.csv
    kept = [file.stat().st_mtime_ns == moment for file, moment in times.items()]
    assert kept.count(False) <= AHEAD  # those in work when the run was killed may have a file but no line
