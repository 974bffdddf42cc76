"""SandboxConfig + image → an open Sandbox, and the promise that none outlives this process."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading

from swe_srl.errors import ApparatusError
from swe_srl.runtime.base import Sandbox, SandboxConfig

_lock = threading.Lock()
_prepared: set[int] = set()


def open_sandbox(config: SandboxConfig, image: str, workdir: str = "/testbed", *, name: str = "") -> Sandbox:
    """Start a box from `image`, which must be there (see `ensure_image`); `workdir` is made where it is missing.

    The first call of a process removes boxes that dead processes have left.

    Raises:
        EngineUnavailable: no engine answers.
        ImageMissing: the engine does not have `image`.
        SandboxError: the box did not start.
    """
    from swe_srl.runtime.docker_box import DockerSandbox

    _prepare()
    return DockerSandbox(config, image, workdir, name)


def _prepare() -> None:
    from swe_srl.runtime.reaper import reap

    with _lock:
        if os.getpid() in _prepared:
            return
        reap()
        _prepared.add(os.getpid())
        atexit.register(_close_all, os.getpid())


def _close_all(pid: int) -> None:
    """Close what is still open when process `pid` ends; a forked child must not close its parent's boxes."""
    from swe_srl.runtime.reaper import reap_own

    # The engine may be gone before us; the next start's reaper takes what is left.
    with contextlib.suppress(ApparatusError):
        if os.getpid() == pid:
            reap_own()
