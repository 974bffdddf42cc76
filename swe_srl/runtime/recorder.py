"""Named pipe in a box → what was written to it, kept outside as it comes.

What has been written cannot be taken back by anything in the box: no file of the box holds it.
"""

from __future__ import annotations

import contextlib
import posixpath
import secrets
import threading
import time
from collections.abc import Callable

from swe_srl.errors import SandboxError
from swe_srl.runtime.shell import Stream, quote

_START_TIMEOUT_S = 20.0
_READY = b"\x06"
LIMIT_BYTES = 50_000_000


class Recorder:
    """Listens to one pipe until it is closed."""

    def __init__(self, stream: Stream, pipe: str, write: Callable[[str], object]) -> None:
        """Make the pipe and listen.

        Args:
            stream: a bash in the box; it becomes the program that reads the pipe.
            pipe: absolute path of the pipe.
            write: runs a line of bash in the box, by way of another shell.

        Raises SandboxError when the pipe cannot be made.
        """
        self._stream = stream
        self._pipe = pipe
        self._write = write
        self._heard = bytearray()
        self._end = b""
        """What `finish` waits for; empty until it does."""
        self._lock = threading.Lock()
        self._closed = False
        folder = quote(posixpath.dirname(pipe))
        # Open for both directions, so that neither side waits for the other and no writer's end is the pipe's end.
        made = f"mkdir -p -- {folder} && mkfifo -m 600 -- {quote(pipe)} && exec 15<>{quote(pipe)}"
        try:
            stream.send(f"{made} && builtin printf '\\006' && exec cat <&15 2>/dev/null\n".encode())
            self._await_start()
        except SandboxError:
            stream.close()
            raise
        self._listener = threading.Thread(target=self._listen, name="box-recorder", daemon=True)
        self._listener.start()

    def finish(self, timeout_s: float = 60.0) -> tuple[bytes, bool]:
        """What was written so far, at most LIMIT_BYTES; and False when the pipe's end could not be reached, as when its reader was killed."""
        self._end = f"\n{secrets.token_hex(16)}\n".encode()
        with contextlib.suppress(SandboxError):
            self._write(f"builtin printf %s {quote(self._end.decode())} 1<>{quote(self._pipe)}")
        self._listener.join(timeout_s)
        with self._lock:
            position = self._heard.rfind(self._end)
            return bytes(self._heard if position < 0 else self._heard[:position]), position >= 0

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self._listener.join()
        self._stream.close()

    def _await_start(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            data: bytes | None = b""
            with contextlib.suppress(TimeoutError):
                data = self._stream.receive(0.5)
            if data is None or time.monotonic() > deadline:
                raise SandboxError(
                    "no pipe can be made in the box: its image needs mkfifo and cat, and a /tmp to write to"
                )
            if _READY in data:
                self._heard += data.partition(_READY)[2]
                return

    def _listen(self) -> None:
        with contextlib.suppress(SandboxError):
            while not self._closed:
                try:
                    data = self._stream.receive(0.1)
                except TimeoutError:
                    continue
                if data is None:
                    return
                with self._lock:
                    if len(self._heard) < LIMIT_BYTES:
                        self._heard += data
                    if self._end and self._end in self._heard[-len(data) - len(self._end) :]:
                        return
