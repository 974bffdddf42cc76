"""The engine as a backend; see `Backend`."""

from __future__ import annotations

from swe_srl.runtime.base import SandboxConfig
from swe_srl.runtime.docker import images, reaper, scrub
from swe_srl.runtime.docker.disk import DockerImageStore
from swe_srl.runtime.docker.machine import DockerMachine


class DockerBackend:
    """See `Backend`."""

    def ensure_image(self, config: SandboxConfig, image: str, context: str | None) -> None:
        """See `Backend.ensure_image`."""
        del config
        images.ensure_image(image, context)

    def without_future(self, config: SandboxConfig, image: str, workdir: str) -> str:
        """See `Backend.without_future`."""
        del config
        return scrub.without_future(image, workdir)

    def image_store(self, config: SandboxConfig) -> DockerImageStore:
        """See `Backend.image_store`."""
        del config
        return DockerImageStore()

    def start(self, config: SandboxConfig, image: str, workdir: str, name: str) -> DockerMachine:
        """See `Backend.start`."""
        return DockerMachine(config, image, workdir, name)

    def reap(self, *, even_alive: bool = False) -> int:
        """See `Backend.reap`."""
        return reaper.reap(even_alive=even_alive)

    def reap_own(self) -> int:
        """See `Backend.reap_own`."""
        return reaper.reap_own()
