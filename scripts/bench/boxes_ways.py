"""The kinds of boxes that boxes.py sets side by side, behind one protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, Protocol

from swe_srl.runtime.base import SandboxConfig
from swe_srl.runtime.docker.client import client, remove_container
from swe_srl.runtime.docker.images import build_image, context_digest, has_image
from swe_srl.runtime.open import BoxRequest, backend_of, open_sandbox
from swe_srl.runtime.pool import WarmPool

TIMEOUT_S = 120
WORKDIR = "/tmp"  # noqa: S108  # in the box
REX_DOCKERFILE = r"""FROM {image}
COPY wheels /tmp/wheels
RUN PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --no-index --find-links /tmp/wheels swe-rex=={version}
# Its server listens on port 8000, which only one box can have on the host's network.
RUN server=$(command -v swerex-remote) && mv $server $server.real \
 && printf '#!/bin/sh\nexec %s.real "$@" --port "$SWEREX_PORT"\n' $server > $server && chmod +x $server
"""


class Way(Protocol):
    """One kind of box; an object is one box. Making the object costs what is no part of a box: imports, images."""

    def open(self) -> None:
        """Start the box."""

    def run(self, command: str) -> str:
        """What `command` prints. Raises RuntimeError unless it exits with 0."""

    def close(self) -> None:
        """Give the box back; harmless where it is not open."""

    def is_gone(self) -> bool:
        """Whether nothing is left of it."""


class Ground:
    """What boxes stand on. What only one kind of them wants is made when it is first asked for."""

    def __init__(self, image: str, folder: Path) -> None:
        self.image = image
        self.label = f"swe-srl.bench={os.getpid()}"
        """On every container of a peer's."""
        self._folder = folder
        self._rex_tag = ""

    @cached_property
    def archives(self) -> Path:
        """A folder with the image as `docker save` writes it."""
        folder = self._folder / "archives"
        folder.mkdir(exist_ok=True)
        subprocess.run(["docker", "save", "-o", folder / "image.tar", self.image], check=True)
        return folder

    @cached_property
    def rex_image(self) -> str:
        """The image with SWE-ReX's server in it. Its wheels are fetched here: a build may reach no package index."""
        context, version = self._folder / "rex", metadata.version("swe-rex")
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(REX_DOCKERFILE.format(image=self.image, version=version))
        tag = f"swe-srl/bench-swerex:{context_digest(context)}"
        if not has_image(tag):
            ask = "import sys; print('%d.%d' % sys.version_info[:2])"
            python = client().containers.run(self.image, ["python3", "-c", ask], remove=True, network_mode="none")
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "-qq", "--only-binary=:all:", "--python-version", python.decode().strip(),
                 "--dest", context / "wheels", f"swe-rex=={version}"], check=True,
            )  # fmt: skip
            build_image(context, tag, {})
        self._rex_tag = tag
        return tag

    def sweep(self) -> None:
        """Remove what a peer has left running, as SWE-ReX does where its server does not answer."""
        for container in client().containers.list(all=True, filters={"label": self.label}):
            remove_container(container)
            wait_until(partial(is_removed, container.id))

    def close(self) -> None:
        """Leave nothing behind."""
        self.sweep()
        if self._rex_tag:
            client().images.remove(self._rex_tag)


class Docker:
    """Ours in a container; `session` as in SandboxConfig."""

    def __init__(self, ground: Ground, config: SandboxConfig) -> None:
        backend_of(config.type).ensure_image(config, ground.image, None)
        self._open = partial(open_sandbox, config, ground.image, WORKDIR)
        self._box = self._machine = None

    def open(self) -> None:
        self._box = self._open()
        self._machine = self._box.machine

    def run(self, command: str) -> str:
        result = self._box.run(command, timeout_s=TIMEOUT_S)
        return checked(result.output, result.exit_code)

    def close(self) -> None:
        if self._box:
            self._box.close()

    def is_gone(self) -> bool:
        return not self._machine or is_removed(self._machine.container.id)


class Warm(Docker):
    """Ours out of a warm pool, where it was ready before it is asked for."""

    def __init__(self, ground: Ground, config: SandboxConfig) -> None:
        super().__init__(ground, config)
        self._request = BoxRequest(ground.image, WORKDIR)
        cold = self._open
        self._pool = WarmPool(lambda _: cold(), [self._request], num_ahead=1)
        time.sleep(2)
        self._open = lambda: self._pool.take(self._request)

    def close(self) -> None:
        super().close()
        self._pool.close()


class Bubblewrap(Docker):
    """Ours without an engine."""

    def is_gone(self) -> bool:
        return not self._machine or not self._machine.folder.exists()


class DockerExec:
    """A container of the Docker SDK, and a `docker exec` for each command."""

    def __init__(self, ground: Ground) -> None:
        options = {"detach": True, "network_mode": "none", "labels": [ground.label]}
        self._start = partial(client().containers.run, ground.image, ["sleep", "2h"], **options)
        self._container = None

    def open(self) -> None:
        self._container = self._start()

    def run(self, command: str) -> str:
        exit_code, output = self._container.exec_run(["bash", "-c", command])
        return checked(output.decode("utf-8", "replace"), exit_code)

    def close(self) -> None:
        if self._container:
            self._container.remove(force=True)

    def is_gone(self) -> bool:
        return not self._container or is_removed(self._container.id)


class MiniSweAgent:
    """mini-swe-agent's DockerEnvironment: the docker program for each command, which starts a login shell."""

    def __init__(self, ground: Ground) -> None:
        from minisweagent.environments.docker import DockerEnvironment

        arguments, quiet = ["--rm", "--network", "none", "--label", ground.label], logging.getLogger("mini-swe-agent")
        self._start = partial(
            DockerEnvironment, image=ground.image, cwd=WORKDIR, timeout=TIMEOUT_S, run_args=arguments, logger=quiet
        )
        self._environment = None
        self._container_id = ""

    def open(self) -> None:
        self._environment = self._start()
        self._container_id = self._environment.container_id

    def run(self, command: str) -> str:
        result = self._environment.execute({"command": command})
        return checked(result["output"], result["returncode"])

    def close(self) -> None:
        if self._environment:
            self._environment.cleanup()
            self._environment.container_id = None  # else it stops it once more when the object is collected

    def is_gone(self) -> bool:
        return not self._container_id or is_removed(self._container_id)


class SweRex:
    """SWE-ReX's DockerDeployment: a server in the container, asked over HTTP, that holds a bash by pexpect."""

    def __init__(self, ground: Ground) -> None:
        from swerex.deployment.docker import DockerDeployment
        from swerex.runtime.abstract import BashAction, CreateBashSessionRequest
        from swerex.utils.free_port import find_free_port

        self._action = partial(BashAction, timeout=TIMEOUT_S, check="silent")
        self._session = CreateBashSessionRequest()
        self._ground, self._find_port = ground, find_free_port
        self._deployment = partial(DockerDeployment, image=ground.rex_image, pull="never", startup_timeout=TIMEOUT_S)
        self._loop = asyncio.Runner()
        self._open = None
        self._name = ""

    def open(self) -> None:
        port = self._find_port()
        arguments = ["--network", "host", "--env", f"SWEREX_PORT={port}", "--label", self._ground.label]
        self._open = self._deployment(port=port, docker_args=arguments)
        # When its server does not answer in time, it waits for the container's end without having ended it.
        watch = threading.Timer(TIMEOUT_S + 5, self._ground.sweep)
        watch.start()
        try:
            self._loop.run(self._open.start())
        finally:
            watch.cancel()
        self._name = self._open.container_name
        self._loop.run(self._open.runtime.create_session(self._session))

    def run(self, command: str) -> str:
        result = self._loop.run(self._open.runtime.run_in_session(self._action(command=command)))
        return checked(result.output, result.exit_code)

    def close(self) -> None:
        if self._open:
            with contextlib.suppress(OSError):  # without its server it does not stop; then we sweep
                self._loop.run(self._open.stop())
            self._open = None
        self._loop.close()

    def is_gone(self) -> bool:
        return not self._name or is_removed(self._name)


class Kind(NamedTuple):
    """How boxes of one way are made."""

    make: Callable[[Ground], Way]
    package: str = ""
    """The distribution that it needs."""
    slow: bool = False
    """A command takes tens of milliseconds: fewer are run."""


# One more way is one more class above and one more line here.
WAYS = {
    "docker": Kind(lambda ground: Docker(ground, SandboxConfig())),
    "docker-fresh": Kind(lambda ground: Docker(ground, SandboxConfig(session="fresh"))),
    "docker-warm": Kind(lambda ground: Warm(ground, SandboxConfig())),
    "bubblewrap": Kind(lambda ground: Bubblewrap(ground, SandboxConfig(type="bubblewrap", archives=ground.archives))),
    "mini-swe-agent": Kind(MiniSweAgent, "mini-swe-agent", slow=True),
    "swe-rex": Kind(SweRex, "swe-rex", slow=True),
    "docker-exec": Kind(DockerExec, slow=True),
}


def checked(output: str, exit_code: int | None) -> str:
    """The output of a command that went well."""
    if exit_code != 0:
        raise RuntimeError(f"a command ended with {exit_code}: {output[:200]!r}")
    return output


def is_removed(container: str) -> bool:
    """Whether the engine knows no such container any more, by id or name."""
    import docker.errors

    try:
        client().api.inspect_container(container)
    except docker.errors.NotFound:
        return True
    return False


def wait_until(is_so: Callable[[], bool]) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"a box was still there {TIMEOUT_S} s after it was closed")
        time.sleep(0.01)
