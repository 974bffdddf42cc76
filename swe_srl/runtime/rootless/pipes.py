"""Two named pipes → the stream of a bash that the box itself has started."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import Protocol

from swe_srl.errors import SandboxError
from swe_srl.runtime.rootless.store import give

_SEND_TIMEOUT_S = 60.0


class Watcher(Protocol):
    """What the machine of a stream knows of it."""

    name: str

    def exit_code_of(self, number: int) -> int | None:
        """Exit code of shell `number`; None while it runs."""

    def is_stopped(self) -> bool:
        """Whether somebody outside has stopped the box."""


class PipeStream:
    """A bash in the box, behind two named pipes; see `Stream`."""

    def __init__(self, machine: Watcher, number: int, folder: Path) -> None:
        self._machine = machine
        self._number = number
        self._paths = [folder / f"{number}.in", folder / f"{number}.out"]
        for path in self._paths:
            os.mkfifo(path, 0o600)
            give(path)
        # Open for both, the pipe needs no reader yet, and the bash finds no end of its input before we close it.
        self._in = os.open(self._paths[0], os.O_RDWR | os.O_NONBLOCK)
        self._out = os.open(self._paths[1], os.O_RDONLY | os.O_NONBLOCK)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._out, select.POLLIN)
        self._writable.register(self._in, select.POLLOUT)

    def send(self, data: bytes) -> None:
        """See `Stream.send`."""
        rest = memoryview(data)
        deadline = time.monotonic() + _SEND_TIMEOUT_S
        while rest:
            try:
                rest = rest[os.write(self._in, rest) :]
            except BlockingIOError:
                if self.exit_code() is not None:  # `receive` will say so
                    return
                self._writable.poll(1000)
                if time.monotonic() > deadline:
                    raise SandboxError(
                        f"the shell of box {self._machine.name} does not take commands any more: open another"
                    ) from None

    def receive(self, timeout_s: float) -> bytes | None:
        """See `Stream.receive`."""
        # A pipe that no writer has opened yet is at its end for `read`, and not for `poll`.
        if not self._readable.poll(max(1, timeout_s * 1000)):
            raise TimeoutError
        data = os.read(self._out, 1 << 18)
        self._forget_paths()
        return data or None

    def exit_code(self) -> int | None:
        """See `Stream.exit_code`."""
        return self._machine.exit_code_of(self._number)

    def refuse_paused(self) -> None:
        """See `Stream.refuse_paused`."""
        if self._machine.is_stopped():
            raise SandboxError(f"box {self._machine.name} was stopped from outside: open another")

    def close(self) -> None:
        """See `Stream.close`."""
        self._forget_paths()
        for descriptor in (self._in, self._out):
            if descriptor >= 0:
                os.close(descriptor)
        self._in = self._out = -1

    def _forget_paths(self) -> None:
        while self._paths:
            self._paths.pop().unlink(missing_ok=True)
