"""SandboxConfig + image → an open Sandbox, and the promise that none outlives this process."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple, Protocol

from swe_srl.assets import cache_dir
from swe_srl.errors import ApparatusError, ImageMissing
from swe_srl.runtime.base import Sandbox, SandboxConfig
from swe_srl.runtime.box import Box, Machine
from swe_srl.runtime.shelf import ImageStore, Shelf

_shelves: dict[tuple[int, str, str, float], Shelf] = {}
_lock = threading.Lock()
_import_lock = threading.Lock()
_prepared: set[tuple[int, str]] = set()


class Backend(Protocol):
    """What keeps boxes apart from the rest of the world; every method raises ApparatusErrors only."""

    def ensure_image(self, config: SandboxConfig, image: str, context: str | None) -> None:
        """Make sure that `image` is there; `context` may hold a Dockerfile to build it from. Raises ImageMissing."""

    def without_future(self, config: SandboxConfig, image: str, workdir: str) -> str:
        """The name of an image as `image`, with what git knows of the future gone from the repository in `workdir`."""

    def image_store(self, config: SandboxConfig) -> ImageStore:
        """Where the images are."""

    def start(self, config: SandboxConfig, image: str, workdir: str, name: str) -> Machine:
        """A machine of `image`; `workdir` is made where it is missing."""

    def reap(self, *, even_alive: bool = False) -> int:
        """Remove the boxes of this host whose owner no longer lives (or all of them); how many there were."""

    def reap_own(self) -> int:
        """Remove the boxes that this process has left open; how many there were."""


def backend_of(kind: str) -> Backend:
    """The backend that a config's `type` names."""
    # One thread at a time: packages that import each other in a circle, as docker's do, cannot be imported by two at once.
    with _import_lock:
        if kind == "bubblewrap":
            from swe_srl.runtime.rootless.backend import RootlessBackend

            return RootlessBackend()
        from swe_srl.runtime.docker.backend import DockerBackend

        return DockerBackend()


def open_sandbox(config: SandboxConfig, image: str, workdir: str = "/testbed", *, name: str = "") -> Sandbox:
    """Start a box from `image`, which must be there; `workdir` is made where it is missing. See `open_box` for more.

    The first call of a process removes boxes that dead processes have left.

    Raises:
        EngineUnavailable: no engine answers, or this machine lacks what boxes without one need.
        ImageMissing: there is no `image`.
        SandboxError: the box did not start.
    """
    if config.cluster:
        return _open_remote(config, BoxRequest(image, workdir, name=name))
    backend = backend_of(config.type)
    _prepare(config.type, backend)
    return Box(config, backend.start(config, image, workdir, name), workdir)


class BoxRequest(NamedTuple):
    """A box that is wanted, with what its image is made from."""

    image: str
    workdir: str = "/testbed"
    context: str | None = None
    """Folder of a Dockerfile, for an image that is not there."""
    without_future: bool = False
    """Whether what git knows of the future is to be gone from the repository in `workdir`."""
    name: str = ""
    """What the box is for, for who reads `docker ps`."""


def open_box(config: SandboxConfig, wanted: BoxRequest) -> Sandbox:
    """Open a box, its image made where it is missing, room for it made under the cap, and kept until the box is closed.

    Raises what `open_sandbox` does, and StorageError when the images in use leave no room.
    """
    if config.cluster:
        return _open_remote(config, wanted)
    with ExitStack() as stack:
        image = stack.enter_context(_hold(config, wanted))
        try:
            box = open_sandbox(config, image, wanted.workdir, name=wanted.name)
        except ImageMissing:  # another process may have evicted it just now
            stack.close()
            image = stack.enter_context(_hold(config, wanted))
            box = open_sandbox(config, image, wanted.workdir, name=wanted.name)
        assert isinstance(box, Box)
        box.after_close = stack.pop_all().close
    return box


def _open_remote(config: SandboxConfig, wanted: BoxRequest) -> Sandbox:
    from swe_srl.runtime.remote import machines_of

    return machines_of(config).open(config, wanted)


@contextlib.contextmanager
def _hold(config: SandboxConfig, wanted: BoxRequest) -> Iterator[str]:
    backend = backend_of(config.type)

    def make() -> list[str]:
        backend.ensure_image(config, wanted.image, wanted.context)
        if not wanted.without_future:
            return [wanted.image]
        return [wanted.image, backend.without_future(config, wanted.image, wanted.workdir)]

    with _shelf(config, backend).hold(wanted.image, make) as names:
        yield names[-1]


def _shelf(config: SandboxConfig, backend: Backend) -> Shelf:
    with _lock:
        key = (os.getpid(), config.type, str(config.archives), config.image_cap_gib)
        if key not in _shelves:
            record = cache_dir("images") / f"{config.type}.json"
            _shelves[key] = Shelf(backend.image_store(config), int(config.image_cap_gib * 2**30), record)
        return _shelves[key]


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
