import platform
import resource

import pytest
import torch

from partzoo.allocation import kept_memory


def page_faults(times):
    """How many pages the system had to hand out for blocks of 40 MB, freed at once."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(10 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so")
def test_freed_memory_is_kept_within_and_goes_back_after():
    with kept_memory():
        page_faults(2)
        kept = page_faults(10)
    assert 4 * kept < page_faults(10)


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with kept_memory():
        assert torch.ones(3).sum() == 3
