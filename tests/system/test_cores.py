"""The number of cores that a process may use, and the threads that share them with torch."""

import os
import threading

import pytest
import torch

from partzoo.system import cores
from partzoo.system.cores import keep_to_one_thread, one_library_thread, usable_cores, worker_threads


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Eight cores, and cgroups in a folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "cgroup")
    return tmp_path


def write(machine, membership, **files):
    (machine / "cgroup").write_text(membership)
    for place, text in files.items():
        file = machine / "groups" / place.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs", "cpu.cfs")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_without_cgroups_the_cores_are_those_that_the_process_may_run_on(machine):
    assert usable_cores() == 8


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a__b__cpu_max": "200000 100000\n"}, 2),
        ({"a__b__cpu_max": "max 100000\n"}, 8),
        ({"a__b__cpu_max": "max 100000\n", "a__cpu_max": "150000 100000\n"}, 2),  # the one above it, rounded up
        ({"cpu_max": "50000 100000\n"}, 1),  # in a container, which does not see the group's own folder
        ({"a__b__cpu_max": "9900000 100000\n"}, 8),
        ({"a__b__cpu_max": "nonsense\n"}, 8),
    ],
)
def test_a_quota_of_cgroups_2_is_kept(machine, files, expected):
    write(machine, "0::/a/b\n", **files)
    assert usable_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("-1", 8), ("1000", 1)])
def test_a_quota_of_cgroups_1_is_kept(machine, quota, expected):
    files = {"cpu__a__cfs_quota_us": f"{quota}\n", "cpu__a__cfs_period_us": "100000\n"}
    write(machine, "4:memory:/a\n3:cpuset:/\n2:cpu,cpuacct:/a\n1:name=systemd:/x\n", **files)
    assert usable_cores() == expected


def test_ours_are_one_more_than_torch_s_and_than_the_cores(machine, monkeypatch):
    for threads, expected in ((1, 1), (3, 3), (20, 8)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert worker_threads() == expected + 1
    monkeypatch.delitem(cores.sys.modules, "torch")
    for text, expected in (("", 8), ("2", 2), ("3,1", 3), ("0", 8), ("many", 8), ("99", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert worker_threads() == expected + 1


def test_torch_has_its_threads_back_after_the_last_block():
    torch.set_num_threads(3)
    try:
        with one_library_thread():
            assert torch.get_num_threads() == 1 and worker_threads() == 2
            with one_library_thread():
                thread = threading.Thread(target=keep_to_one_thread)
                thread.start()
                thread.join()
        assert torch.get_num_threads() == 3
        with pytest.raises(KeyError), one_library_thread():
            raise KeyError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
