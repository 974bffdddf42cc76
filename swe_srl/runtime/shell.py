"""Command text → (output, exit code), through one bash that stays alive inside a box.

The bash is started once by an exec whose stream stays attached, so that a command costs what the command costs: one
write and one read, well under a millisecond, where an exec per command costs 40 to 60.

On the wire
-----------
Each command is one line, `eval $'…'`, so no quote or here-document in it can swallow what follows. A second line prints
a marker with a fresh nonce, the exit code and the working directory; a loop that reads commands would be at the mercy of
`break`, a script read from a stream is not. The command sees /dev/null as its input, and neither the script stream nor
the descriptor that the marker goes to.

The bash is interactive (without job control: there is no terminal). Only an interactive bash goes back to its prompt,
with cwd and variables, when it is interrupted in the middle of a command, or when `set -u` meets an unset name.
A shell that exits prints a marker of its own as its last words: the engine may take seconds to say that it has ended,
when a job in the background holds the stream. `exec` and `kill -9` leave no last words; then the engine is asked.

What the engine sends as standard error are prompts and traces of our own lines, and is thrown away.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from typing import Any, NamedTuple

from docker import DockerClient

from swe_srl.errors import SandboxError
from swe_srl.runtime.engine import engine_errors

BASH = ["bash", "--noprofile", "--norc", "--noediting", "-i"]
# 17: where last words go, the one of the three that a command keeps. 18: where its output and the marker go, also when it
# redirects its own output for good. 19: our stream, for `feed`.
# USR1 makes the shell interrupt itself: unlike a bare INT, it is sure to come when bash is not waiting for a child.
_SETUP = "PS1= PS2=; set +o history +H; unset HISTFILE MAILCHECK; exec 17>&1 18>&1 19<&0; trap 'kill -INT $$' USR1"
_PLUMBING = "</dev/null >&18 2>&1 18>&- 19<&-"
_RECORD = b"\x1e"
_SEND_TIMEOUT_S = 60.0
_LONGEST_WORD = 100_000
"""Of a command line, in bytes; Linux takes 128 KiB (MAX_ARG_STRLEN)."""


class Answer(NamedTuple):
    """What a shell said to one request."""

    output: bytes
    exit_code: int | None
    """None when nothing was heard in time."""
    num_bytes_dropped: int = 0
    died: bool = False
    """The shell itself ended (`exit`, `exec`, `kill`); its exit code is the answer's."""


def quote(text: str) -> str:
    """`text` as one line of bash that evaluates to exactly these bytes; needs no NUL in it."""
    out = []
    for byte in text.encode("utf-8", "surrogateescape"):
        char = chr(byte)
        if char == "\n":
            out.append("\\n")
        elif char in "'\\":
            out.append("\\" + char)
        elif 32 <= byte < 127:
            out.append(char)
        else:
            out.append(f"\\x{byte:02x}")
    return "$'" + "".join(out) + "'"


def _status(nonce: str) -> str:
    """Bash that prints a marker: nonce, exit code, working directory."""
    return f'builtin printf \'\\036%s %d %s\\036\' {nonce} "$?" "${{PWD-}}"'


class _Output:
    """Keeps the first `limit` bytes and counts the rest."""

    def __init__(self, limit: int | None) -> None:
        self.kept = bytearray()
        self.num_dropped = 0
        self._limit = limit

    def take(self, data: bytes | bytearray) -> None:
        room = len(data) if self._limit is None else max(0, self._limit - len(self.kept))
        self.kept += data[:room]
        self.num_dropped += max(0, len(data) - room)


class Shell:
    """A bash in a running container. One thread at a time."""

    def __init__(self, client: DockerClient, container_id: str, cwd: str) -> None:
        self._api = client.api
        self._container_id = container_id
        self._frames = bytearray()
        self._pending = bytearray()
        farewell = secrets.token_hex(8)
        self._marker = self._last_words = _RECORD + farewell.encode() + b" "
        self.cwd = cwd
        """Where the shell stood after its last command."""
        with engine_errors(f"starting a shell in box {container_id[:12]}"):
            self._exec_id = self._api.exec_create(container_id, BASH, stdin=True, workdir=cwd)["Id"]
            holder: Any = self._api.exec_start(self._exec_id, socket=True)
        # The SDK hands out a wrapper around the stream; time-outs need the socket itself.
        self._socket: socket.socket = getattr(holder, "_sock", holder)
        self._holder = holder
        last_words = f"{_status(farewell)} >&17 2>/dev/null"
        self._send(f"{_SETUP}; trap {quote(last_words)} EXIT\n")
        hello = self.ask("builtin printf %s $$", timeout_s=30)
        if hello.exit_code != 0 or not hello.output.isdigit():
            self.close()
            raise SandboxError(
                f"box {container_id[:12]} has no working bash in {cwd} (exit code {hello.exit_code}): its image needs bash 4 or later"
            )
        self.pid = int(hello.output)

    def ask(self, script: str, *, timeout_s: float, limit: int | None = None) -> Answer:
        """Evaluate `script` in this shell. Raises SandboxError when the stream breaks in a way that is not the shell's end."""
        self._send(f"eval {quote(script)} {_PLUMBING}\n{self._end()}")
        return self._read(time.monotonic() + timeout_s, limit)

    def ask_apart(self, command: str, cwd: str, *, timeout_s: float, limit: int | None = None) -> Answer:
        """Run `command` in a new bash that starts in `cwd`; nothing of it stays in this shell."""
        if len(command.encode("utf-8", "surrogateescape")) <= _LONGEST_WORD:
            started = f"bash -c {quote(command)}"
        else:  # as a file that only the new shell has open
            started = f"bash -c '__=$(</dev/fd/16); exec 16<&-; eval \"$__\"' 16<<<{quote(command)}"
        self._send(f"builtin cd -- {quote(cwd)} 2>&18 && {started} {_PLUMBING}\n{self._end()}")
        return self._read(time.monotonic() + timeout_s, limit)

    def feed(self, script: str, data: bytes, *, timeout_s: float) -> Answer:
        """Evaluate `script`, which reads exactly `data` from descriptor 19, or ends the shell: else the rest would be run."""
        ready = secrets.token_hex(8)
        # bash reads its script in blocks: the data may follow only when it has stopped reading, and the marker's line only after that.
        self._send(f"builtin printf '\\036%s 0 \\036' {ready}; eval {quote(script)} </dev/null >&18 2>&1\n")
        self._marker = _RECORD + ready.encode() + b" "
        begun = self._read(time.monotonic() + timeout_s, None)
        if begun.died or begun.exit_code is None:
            return begun
        self._send(data)
        self._send(self._end())
        return self._read(time.monotonic() + timeout_s, None)

    def catch_up(self, timeout_s: float) -> bool:
        """After a time-out: read on until the interrupted command has ended. False when it has not, or the shell is dead."""
        answer = self._read(time.monotonic() + timeout_s, 0)
        if answer.exit_code is None or answer.died:
            return False
        # The last words of what was killed may stand behind the marker; the next command shall not be blamed for them.
        return self.ask(":", timeout_s=timeout_s, limit=0).exit_code == 0

    def close(self) -> None:
        """Let go of the stream; bash ends when its input does."""
        self._socket.close()
        self._holder.close()

    def _end(self) -> str:
        nonce = secrets.token_hex(8)
        self._marker = _RECORD + nonce.encode() + b" "
        # Options that would act on our own lines (or, set -e, end the shell at the next failing command) do not carry over.
        return f'builtin printf \'\\036%s %d %s\\036\' {nonce} "$?" "${{PWD-}}" >&18; set +exvn\n'

    def _send(self, data: str | bytes) -> None:
        try:
            self._socket.settimeout(_SEND_TIMEOUT_S)
            self._socket.sendall(data.encode() if isinstance(data, str) else data)
        except OSError as error:
            raise SandboxError(
                f"the shell of the box does not take commands any more ({error}): the box is gone or the engine stopped"
            ) from error

    def _read(self, deadline: float, limit: int | None) -> Answer:
        """Read until the marker, the deadline, or the shell's end."""
        output = _Output(limit)
        patience_s = 0.1
        while True:
            # What stands before the marker is output; the tail may be the beginning of a marker that is still coming.
            start = max(self._pending.find(self._marker), self._pending.find(self._last_words))
            end = self._pending.find(_RECORD, start + 1) if start >= 0 else -1
            if end >= 0:
                return self._finish(output, start, end)
            safe = start if start >= 0 else max(0, len(self._pending) - len(self._marker) + 1)
            output.take(self._pending[:safe])
            del self._pending[:safe]
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                # The tail stays, for `catch_up`; what is shown of it here is thrown away there.
                output.take(self._pending)
                return Answer(bytes(output.kept), None, output.num_dropped)
            try:
                data = self._receive(min(patience_s, left_s))
            except TimeoutError:
                patience_s = min(2 * patience_s, 1.0)
                self._refuse_paused()
                # A job left in the background can hold the stream open for seconds after the shell has ended.
                data = None if self._exit_code() is not None and not self._more() else b""
            if data is None:
                output.take(self._pending)
                self._pending.clear()
                return Answer(bytes(output.kept), self._final_exit_code(), output.num_dropped, died=True)
            self._pending += data

    def _finish(self, output: _Output, start: int, end: int) -> Answer:
        """The marker stands at `start`, its last byte at `end`; what follows belongs to a job in the background."""
        died = self._pending.startswith(self._last_words, start)
        output.take(self._pending[:start])
        code, _, cwd = self._pending[start + len(self._marker) : end].decode("utf-8", "surrogateescape").partition(" ")
        del self._pending[: end + 1]
        self.cwd = cwd or self.cwd
        return Answer(bytes(output.kept), int(code), output.num_dropped, died)

    def _more(self) -> bool:
        """Whether anything is still on its way from a shell that has ended."""
        try:
            data = self._socket_receive(0.05)
        except TimeoutError:
            return False
        self._frames += data
        return bool(data)

    def _receive(self, timeout_s: float) -> bytes | None:
        """Standard output out of what has come next; None at the end of the stream. Raises TimeoutError.

        The engine's frames: one byte stream number, three of padding, four of length (big endian), then the data.
        """
        taken = bytearray()
        if not self._take_frames(taken):
            data = self._socket_receive(timeout_s)
            if not data:
                return None
            self._frames += data
            self._take_frames(taken)
        return bytes(taken)

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

    def _socket_receive(self, timeout_s: float) -> bytes:
        # 0 would make the socket non-blocking, which raises another error.
        self._socket.settimeout(max(timeout_s, 0.0005))
        try:
            return self._socket.recv(1 << 18)
        except TimeoutError:
            raise
        except ConnectionError:
            return b""
        except OSError as error:
            raise SandboxError(f"the shell of the box cannot be heard any more ({error})") from error

    def _refuse_paused(self) -> None:
        with engine_errors("asking for a box's state"):
            paused = self._api.inspect_container(self._container_id)["State"]["Paused"]
        if paused:
            raise SandboxError(f"box {self._container_id[:12]} was paused from outside: open another")

    def _exit_code(self) -> int | None:
        """Exit code of the bash; None while it runs."""
        with engine_errors("asking for a shell's exit code"):
            state = self._api.exec_inspect(self._exec_id)
        return None if state["Running"] else state["ExitCode"]

    def _final_exit_code(self) -> int | None:
        """Exit code of a bash whose stream has ended; the engine may need a moment to know it."""
        for _ in range(50):
            code = self._exit_code()
            if code is not None:
                return code
            time.sleep(0.02)
        return None
