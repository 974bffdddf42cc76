"""How a process with a model in it uses threads and memory. To be settled before torch is loaded, which reads some of it once."""

from __future__ import annotations

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def settle() -> None:
    """Settings of OpenMP and of glibc's malloc; those that the user has made in the environment stay.

    Threads that wait are to sleep, not to spin: where other processes want the cores too (boxes, a second run), spinning
    costs more than half the throughput (60 against 150 tokens a CPU second in training), and on idle cores it gains
    next to nothing with models of 100M parameters and more.

    Memory is kept from one update to the next, in large pages where the kernel grants them. With malloc's defaults the
    gigabytes of an update go back to the kernel and come again with a page fault for every 4 KiB: the second update of
    9,450 tokens with 135M parameters took 48 s so, and 39 s with these.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    chosen = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if platform.libc_ver()[0] == "glibc" and not chosen:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)  # nothing is given back
        libc.mallopt(_M_MMAP_MAX, 0)
