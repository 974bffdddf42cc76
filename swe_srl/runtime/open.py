"""SandboxConfig + image → an open Sandbox, and the promise that none outlives this process."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from typing import Protocol

from swe_srl.errors import ApparatusError
from swe_srl.runtime.base import Sandbox, SandboxConfig
from swe_srl.runtime.box import Box, Machine

_lock = threading.Lock()
_prepared: set[tuple[int, str]] = set()


class Backend(Protocol):
    """What keeps boxes apart from the rest of the world; every method raises ApparatusErrors only."""

    def ensure_image(self, config: SandboxConfig, image: str, context: str | None) -> None:
        """Make sure that `image` is there; `context` may hold a Dockerfile to build it from. Raises ImageMissing."""

    def without_future(self, config: SandboxConfig, image: str, workdir: str) -> str:
        """The name of an image as `image`, with what git knows of the future gone from the repository in `workdir`."""

    def start(self, config: SandboxConfig, image: str, workdir: str, name: str) -> Machine:
        """A machine of `image`; `workdir` is made where it is missing."""

    def reap(self, *, even_alive: bool = False) -> int:
        """Remove the boxes of this host whose owner no longer lives (or all of them); how many there were."""

    def reap_own(self) -> int:
        """Remove the boxes that this process has left open; how many there were."""


def backend_of(kind: str) -> Backend:
    """The backend that a config's `type` names."""
    if kind == "bubblewrap":
        from swe_srl.runtime.rootless.backend import RootlessBackend

        return RootlessBackend()
    from swe_srl.runtime.docker.backend import DockerBackend

    return DockerBackend()


def open_sandbox(config: SandboxConfig, image: str, workdir: str = "/testbed", *, name: str = "") -> Sandbox:
    """Start a box from `image`, which must be there (see `ensure_image`); `workdir` is made where it is missing.

    The first call of a process removes boxes that dead processes have left.

    Raises:
        EngineUnavailable: no engine answers, or this machine lacks what boxes without one need.
        ImageMissing: there is no `image`.
        SandboxError: the box did not start.
    """
    backend = backend_of(config.type)
    _prepare(config.type, backend)
    return Box(config, backend.start(config, image, workdir, name), workdir)


def ensure_image(config: SandboxConfig, image: str, context: str | None = None) -> None:
    """See `Backend.ensure_image`."""
    backend_of(config.type).ensure_image(config, image, context)


def without_future(config: SandboxConfig, image: str, workdir: str) -> str:
    """See `Backend.without_future`."""
    return backend_of(config.type).without_future(config, image, workdir)


def _prepare(kind: str, backend: Backend) -> None:
    with _lock:
        if (os.getpid(), kind) in _prepared:
            return
        backend.reap()
        _prepared.add((os.getpid(), kind))
        atexit.register(_close_all, os.getpid(), backend)


def _close_all(pid: int, backend: Backend) -> None:
    """Close what is still open when process `pid` ends; a forked child must not close its parent's boxes."""
    # The engine may be gone before us; the next start's reaper takes what is left.
    with contextlib.suppress(ApparatusError):
        if os.getpid() == pid:
            backend.reap_own()
