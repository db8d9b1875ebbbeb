"""Keep freed memory in the process while a model works on a CPU, which saves time.

Every layer frees maps of many megabytes and allocates new ones. By default glibc returns blocks of that size to
the operating system, which hands them out again page by page, each filled with zeros. For a small convolutional network
this takes a third of a training step, and half of a forward pass over large batches (docs/spatial.md, "Speed").
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # constants from malloc.h
NEVER = -1
# Values that glibc's thresholds reach in a process that frees large blocks, and its limit of mapped blocks.
ADAPTED = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 64 << 20, M_MMAP_MAX: 65536}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for the next allocation inside the block, and return it to the system after the block.

    With a C library other than glibc this does nothing.
    """
    libc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if libc is None:
        yield
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        for option, value in ADAPTED.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
