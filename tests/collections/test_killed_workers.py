"""Runs of several processes of which one is killed at a random moment."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.image_sets import encoded

import partzoo
from partzoo.collections.manifest import MANIFEST, verify
from partzoo.collections.run import write_collection

pytest.importorskip("pyarrow")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.slow

COUNT, PER = 40, 4
WORDS = ("--model", "toy-vit", "--pooled", "--format", "parquet", "--per-shard", str(PER), "--workers", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("killed") / "images"
    place.mkdir()
    for number in range(COUNT):
        (place / f"{number:02}.png").write_bytes(encoded(number))
    return place


def contents(folder):
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def start(folder, out):
    environment = os.environ | {"PYTHONPATH": str(Path(partzoo.__file__).parents[1])}
    words = [sys.executable, "-m", "partzoo", "features", folder, "-o", out, *WORDS]
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("victim", ["first process", "worker", "all, by Ctrl+C"])
def test_a_killed_run_leaves_no_process_and_is_completed(victim, folder, tmp_path):
    out, expected = tmp_path / "out", tmp_path / "expected"
    write_collection(folder, partzoo.ExtractFeatures("toy-vit"), expected, per_shard=PER)
    run = start(folder, out)
    while not list(out.glob("features/*.parquet")) and run.poll() is None:
        time.sleep(0.02)
    time.sleep(random.SystemRandom().uniform(0, 0.1))
    children = psutil.Process(run.pid).children(recursive=True)
    workers = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
    assert len(workers) == 2, "the run ended by itself"
    if victim == "worker":
        workers[0].kill()
    else:
        run.send_signal(signal.SIGKILL if victim == "first process" else signal.SIGINT)
    _, said = run.communicate()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive and run.returncode == {"first process": -9, "worker": 1}.get(victim, 130), said
    assert ("A worker ended" in said) == (victim == "worker") and not (out / MANIFEST).exists()
    again = start(folder, out)
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert contents(out) == contents(expected) and {each.state for each in verify(out)} == {"ok"}
