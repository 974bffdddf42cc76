"""Names of system calls → the program by which the kernel refuses them."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from functools import cache


@cache
def deny(calls: tuple[str, ...]) -> bytes:
    """Classic BPF for seccomp in which `calls` fail with EPERM and every other call is let through; see seccomp(2).

    Names that this architecture does not have are passed over.
    """
    import pyseccomp

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in calls:
        with contextlib.suppress(RuntimeError):
            rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
