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


AT_THE_END = """
import contextlib
import sys
import threading
import psutil
from helpers.plain_stages import Means
from partzoo.collections.run import write_collection

def stop(done, total):
    if done == total:
        children = psutil.Process().children()
        workers = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
        workers.sort(key=lambda each: each.pid)
        for each in workers:
            each.suspend()
        threading.Timer(1, end, (workers.pop(int(sys.argv[3])), *workers)).start()

def end(killed, other):
    with contextlib.suppress(psutil.NoSuchProcess):
        killed.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        other.resume()

if __name__ == "__main__":
    write_collection(sys.argv[1], Means("means"), sys.argv[2], per_shard=4, workers=2, progress=stop)
"""


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_killed_while_the_pool_shuts_down_does_not_hold_up_the_end(which, folder, tmp_path):
    """One of the two waits for more work with a lock, for which the other waits."""
    (tmp_path / "run.py").write_text(AT_THE_END)
    root = Path(partzoo.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    words = [sys.executable, tmp_path / "run.py", folder, tmp_path / "out", str(which)]
    subprocess.run(words, env=environment, check=True, timeout=120)
    assert {each.state for each in verify(tmp_path / "out")} == {"ok"}
