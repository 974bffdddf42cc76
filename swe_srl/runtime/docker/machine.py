"""Image → Machine: a Docker container without network.

Podman serves the same API: point DOCKER_HOST at its socket.
"""

from __future__ import annotations

import os
import socket
import struct
import uuid
from typing import Any

from docker import DockerClient
from docker.models.containers import Container
from docker.types import LogConfig

from swe_srl.errors import SandboxError
from swe_srl.runtime.base import SandboxConfig
from swe_srl.runtime.docker.client import LABEL, NAME_LABEL, OWNER_LABEL, client, engine_errors, remove_container
from swe_srl.runtime.processes import owner_label
from swe_srl.runtime.proxy import proxy_variables
from swe_srl.runtime.shell import BASH

_SEND_TIMEOUT_S = 60.0


class DockerMachine:
    """See `Machine`."""

    def __init__(self, config: SandboxConfig, image: str, workdir: str, name: str) -> None:
        self.name = name or f"box-{uuid.uuid4().hex[:8]}"
        self._api = client().api
        limits = config.limits
        with engine_errors(f"starting box {self.name} from {image}"):
            self.container: Container = client().containers.create(
                image,
                entrypoint=["sleep", "infinity"],
                working_dir=workdir,
                environment=config.environment | proxy_variables(config.allowed_hosts()),
                use_config_proxy=False,  # else the SDK copies proxy settings of the host into the box
                network_mode="none",
                cap_drop=["ALL"],
                cap_add=list(config.confinement().capabilities),
                security_opt=["no-new-privileges"],
                shm_size=f"{limits.shm_mib}m",
                init=True,
                nano_cpus=int(min(limits.cpus, _num_cpus(client())) * 1e9),
                mem_limit=f"{limits.memory_mib}m",
                memswap_limit=f"{limits.memory_mib}m",
                pids_limit=limits.pids,
                log_config=LogConfig(type="none"),
                labels={LABEL: "box", OWNER_LABEL: owner_label(), NAME_LABEL: self.name},
            )
            try:
                self.container.start()
            except BaseException:
                self.remove()
                raise

    def start_bash(self, cwd: str) -> ExecStream:
        """See `Machine.start_bash`."""
        with engine_errors(f"starting a shell in box {self.name}"):
            exec_id = self._api.exec_create(self.container.id, BASH, stdin=True, workdir=cwd)["Id"]
            return ExecStream(self.name, str(self.container.id), exec_id, self._api.exec_start(exec_id, socket=True))

    def num_bytes_written(self) -> int:
        """See `Machine.num_bytes_written`."""
        with engine_errors(f"asking for the size of box {self.name}"):
            found = self._api.containers(all=True, size=True, filters={"id": self.container.id})
        return int(found[0].get("SizeRw", 0)) if found else 0

    def remove(self) -> None:
        """See `Machine.remove`."""
        remove_container(self.container)


class ExecStream:
    """An exec whose streams are attached, see `Stream`."""

    def __init__(self, name: str, container_id: str, exec_id: str, holder: Any) -> None:
        self._name = name
        self._container_id = container_id
        self._exec_id = exec_id
        self._api = client().api
        # The SDK hands out a wrapper around the stream; time-outs need the socket itself.
        self._socket: socket.socket = getattr(holder, "_sock", holder)
        self._holder = holder
        self._frames = bytearray()

    def send(self, data: bytes) -> None:
        """See `Stream.send`."""
        try:
            self._socket.settimeout(_SEND_TIMEOUT_S)
            self._socket.sendall(data)
        except OSError as error:
            raise SandboxError(
                f"the shell of box {self._name} does not take commands any more ({error}): the box is gone or the engine stopped"
            ) from error

    def receive(self, timeout_s: float) -> bytes | None:
        """See `Stream.receive`: standard output only.

        The engine's frames: one byte stream number, three of padding, four of length (big endian), then the data.
        """
        taken = bytearray()
        if not self._take_frames(taken):
            data = self._receive_raw(timeout_s)
            if not data:
                return None
            self._frames += data
            self._take_frames(taken)
        return bytes(taken)

    def exit_code(self) -> int | None:
        """See `Stream.exit_code`."""
        with engine_errors("asking for a shell's exit code"):
            state = self._api.exec_inspect(self._exec_id)
        return None if state["Running"] else state["ExitCode"]

    def refuse_paused(self) -> None:
        """See `Stream.refuse_paused`."""
        with engine_errors("asking for a box's state"):
            paused = self._api.inspect_container(self._container_id)["State"]["Paused"]
        if paused:
            raise SandboxError(f"box {self._name} was paused from outside: open another")

    def close(self) -> None:
        """See `Stream.close`."""
        self._socket.close()
        self._holder.close()

    def _take_frames(self, taken: bytearray) -> bool:
        start, found = 0, False
        while len(self._frames) - start >= 8:
            stream, length = struct.unpack_from(">BxxxI", self._frames, start)
            if len(self._frames) - start - 8 < length:
                break
            if stream == 1:
                taken += self._frames[start + 8 : start + 8 + length]
            start, found = start + 8 + length, True
        del self._frames[:start]
        return found

    def _receive_raw(self, timeout_s: float) -> bytes:
        # 0 would make the socket non-blocking, which raises another error.
        self._socket.settimeout(max(timeout_s, 0.0005))
        try:
            return self._socket.recv(1 << 18)
        except TimeoutError:
            raise
        except ConnectionError:
            return b""
        except OSError as error:
            raise SandboxError(f"the shell of box {self._name} cannot be heard any more ({error})") from error


_cpus: dict[int, float] = {}


def _num_cpus(engine: DockerClient) -> float:
    """Processors of the engine's machine: it refuses a box that asks for more."""
    if os.getpid() not in _cpus:
        _cpus[os.getpid()] = float(engine.info()["NCPU"])
    return _cpus[os.getpid()]
