"""Locks of outputs, and leftovers of dead processes."""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from partzoo.errors import PartzooError
from partzoo.files import write_aside
from partzoo.locks import hidden_folder, locked, remove_leftovers

HOLD = """
import os, sys, time
from pathlib import Path
from partzoo.locks import hidden_folder, locked
place = Path(sys.argv[1])
with locked(place), hidden_folder(place / "a.npz" if place.is_dir() else place) as folder:
    (folder / "a.npz").write_bytes(b"half")
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def holder(folder):
    """Run a process that holds the lock of a folder and writes a file in it."""
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_names_its_process_and_ends_with_it(tmp_path, kill):
    with holder(tmp_path) as number:
        with pytest.raises(PartzooError, match=rf"by process {number} on {platform.node()}\. Wait"), locked(tmp_path):
            pass
        remove_leftovers(tmp_path)
        assert [each.read_bytes() for each in tmp_path.glob("*/a.npz")] == [b"half"]  # of a living process
        os.kill(number, kill)
    assert list(tmp_path.glob("*/a.npz"))
    with locked(tmp_path):
        assert [each.name for each in tmp_path.iterdir()] == [".partzoo.lock"]
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_file_is_beside_it_and_does_not_lock_others(tmp_path):
    file = tmp_path / ("x" * 240 + ".npz")
    with locked(file), locked(tmp_path / "other.npz"), locked(tmp_path):
        with pytest.raises(PartzooError, match="is being written by process"), locked(file):
            pass
        assert len(list(tmp_path.iterdir())) == 3
    assert not list(tmp_path.iterdir())


def test_a_link_to_a_folder_has_the_same_lock(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with locked(tmp_path / "run"), pytest.raises(PartzooError, match="is being written"), locked(tmp_path / "link"):
        pass


def test_only_leftovers_are_removed(tmp_path):
    """Neither files and folders of other names, nor what a link names, nor what is being written."""
    (tmp_path / ".partzoo-a.part").write_text("a file")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").touch()
    (tmp_path / ".partzoo-link.part").symlink_to("kept")
    (tmp_path / ".mine.part").mkdir()
    (tmp_path / ".partzoo-b.part").mkdir()
    with hidden_folder(tmp_path / "c") as folder:
        remove_leftovers(tmp_path)
        assert folder.is_dir()
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {".partzoo-a.part", "kept", ".partzoo-link.part", ".mine.part"}
    assert (tmp_path / "kept" / "a").exists()


def test_a_link_to_a_file_is_locked_where_it_is(tmp_path):
    """Where it leads need not exist, since the link is replaced by what is written."""
    (tmp_path / "link.npz").symlink_to(tmp_path / "nowhere" / "a.npz")
    with locked(tmp_path / "link.npz"):
        assert {each.name for each in tmp_path.iterdir()} == {"link.npz", ".partzoo-link.npz.lock"}


def test_locks_of_dead_processes_are_removed_from_the_folder_and_no_others(tmp_path):
    (tmp_path / ".partzoo-dead.npz.lock").write_text("process 1 on elsewhere")
    (tmp_path / ".partzoo-named.npz.lock").mkdir()
    (tmp_path / "kept").touch()
    (tmp_path / ".partzoo-link.npz.lock").symlink_to("kept")
    with holder(tmp_path / "living.npz"), locked(tmp_path / "new.npz"):
        names = {each.name for each in tmp_path.glob(".partzoo-*.lock")}
    kept = {".partzoo-named.npz.lock", ".partzoo-link.npz.lock"}
    assert names == {".partzoo-living.npz.lock", ".partzoo-new.npz.lock", *kept}
    assert (tmp_path / "kept").exists()


def test_a_process_that_waits_gets_the_lock_when_the_other_ends(tmp_path):
    with holder(tmp_path / "notes") as number:
        timer = threading.Timer(0.3, os.kill, (number, signal.SIGKILL))
        timer.start()
        began = time.monotonic()
        with locked(tmp_path / "notes", wait=True):
            assert time.monotonic() - began > 0.2
        timer.join()


def test_of_many_writers_one_at_a_time_holds_the_lock(tmp_path):
    inside, most, refused = [], [], []

    def write(number):
        for _ in range(50):
            try:
                with locked(tmp_path):
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)
            except PartzooError as error:
                refused.append(error)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert max(most) == 1 and len(most) + len(refused) == 400 and not list(tmp_path.iterdir())


def test_writers_and_removal_of_leftovers_do_not_disturb_each_other(tmp_path):
    def write(number):
        for _ in range(50):
            with write_aside(tmp_path / "a") as file:
                file.write(bytes([number]) * 1000)

    def remove(_):
        for _ in range(300):
            remove_leftovers(tmp_path)

    with ThreadPoolExecutor(6) as pool:
        done = [pool.submit(write, number) for number in range(4)] + [pool.submit(remove, 0) for _ in range(2)]
    for each in done:
        each.result()
    assert [each.name for each in tmp_path.iterdir()] == ["a"] and len(set((tmp_path / "a").read_bytes())) == 1
