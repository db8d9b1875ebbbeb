"""Freed memory that stays with the process, while a model trains or is evaluated on a CPU.

Every layer frees maps of many megabytes and asks for as many again. By default glibc gives blocks of that size back to
the system, which hands them out anew page by page, each filled with zeros: for a small convolutional network that is a
third of a training step, and half of a pass over large batches (docs/spatial.md, "Speed").
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h
NEVER = -1
# What glibc's own thresholds grow to in a process that frees large blocks, and its limit of mapped blocks.
ADAPTED = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 64 << 20, M_MMAP_MAX: 65536}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within it, what is freed is kept for the next allocation; after it, free memory goes back to the system.

    Under another C library than glibc it changes nothing.
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
