"""Boxes without an engine as a backend; see `Backend`."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

from swe_srl.assets import material
from swe_srl.errors import ImageMissing, SandboxError
from swe_srl.runtime.base import SandboxConfig
from swe_srl.runtime.processes import owner_label, owner_lives, start_time
from swe_srl.runtime.rootless import store
from swe_srl.runtime.rootless.disk import RootlessImageStore
from swe_srl.runtime.rootless.machine import BubblewrapMachine, kill_first

_SCRUB_TIMEOUT_S = 600.0
PAST = "past"


class RootlessBackend:
    """See `Backend`."""

    def ensure_image(self, config: SandboxConfig, image: str, context: str | None) -> None:
        """See `Backend.ensure_image`: unpacks it. Nothing can be built here."""
        try:
            store.image_of(image, config.archives)
        except ImageMissing as error:
            if context is None or not (Path(context) / "Dockerfile").is_file():
                raise
            raise ImageMissing(
                f"{error}; it is built where there is an engine: `docker build -t {image} {context}`, then `docker save`"
            ) from error

    def without_future(self, config: SandboxConfig, image: str, workdir: str) -> str:
        """See `Backend.without_future`."""
        base = store.image_of(image, config.archives)
        script = material("sandboxes", "scrub.sh").read_text()
        digest = hashlib.sha256("\0".join((*base.layers, workdir, script)).encode()).hexdigest()[:16]
        name = f"{PAST}-{digest}"
        with store.locked(name):
            if not store.has_derived(name):
                machine = BubblewrapMachine(config, base, workdir, f"scrub-{image}")
                try:
                    code, words = machine.run_alone(script, [workdir], timeout_s=_SCRUB_TIMEOUT_S)
                    if code != 0:
                        raise SandboxError(
                            f"image {image}: the repository in {workdir} keeps its future ({code}): {words.strip()[-500:]}"
                        )
                    machine.stop()
                    store.keep_derived(name, base, machine.upper)
                finally:
                    machine.remove()
        return name

    def image_store(self, config: SandboxConfig) -> RootlessImageStore:
        """See `Backend.image_store`."""
        return RootlessImageStore(config.archives)

    def start(self, config: SandboxConfig, image: str, workdir: str, name: str) -> BubblewrapMachine:
        """See `Backend.start`."""
        return BubblewrapMachine(config, store.image_of(image, config.archives), workdir, name)

    def reap(self, *, even_alive: bool = False) -> int:
        """See `Backend.reap`."""
        return _reap(lambda owner: even_alive or not owner_lives(owner))

    def reap_own(self) -> int:
        """See `Backend.reap_own`."""
        mine = owner_label()
        return _reap(lambda owner: owner == mine)


def _reap(doomed: Callable[[str], bool]) -> int:
    num = 0
    for folder in (store.store() / "boxes").iterdir():
        if not doomed(_owner_of(folder)):
            continue
        with contextlib.suppress(OSError, ValueError):
            pid, _, began = (folder / "pid").read_text().partition(" ")
            if start_time(int(pid)) == began:
                kill_first(int(pid))
        store.remove_tree(folder)
        num += 1
    return num


def _owner_of(folder: Path) -> str:
    with contextlib.suppress(OSError):
        if owner := (folder / "owner").read_text():
            return owner
    pid, began, _ = folder.name.rpartition("-")[2].split(".")
    return f"{socket.gethostname()}:{pid}:{began}"
