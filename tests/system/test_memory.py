import platform
import subprocess
import sys

import pytest
import torch

from partzoo.system.memory import kept_memory

# How many megabytes more a process holds than at first: after 40 have come and gone, the same within, and after that.
SCRIPT = """
import resource

import torch
from partzoo.system.memory import kept_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

torch.ones(10)
start = resident()
torch.ones(10_000_000)
print(resident() - start)
with kept_memory():
    torch.ones(10_000_000)
    print(resident() - start)
print(resident() - start)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so")
def test_freed_memory_is_kept_within_and_goes_back_after():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, within, after = map(float, done.stdout.split())
    assert before < 10
    assert within > 35
    assert after < 10


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with kept_memory():
        assert torch.ones(3).sum() == 3
