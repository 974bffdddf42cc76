"""Machine → Sandbox: a box with two shells in it, whatever it is that keeps the box apart from the rest of the world.

One shell is the agent's. The other is ours: it reads and writes files, asks git for diffs, and kills what has run out of
time. It is started before the agent's, so it works when the agent's is stuck or the box is at its limit of processes.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import time
from collections.abc import Callable
from typing import Protocol

from swe_srl.errors import SandboxError
from swe_srl.runtime.base import Closing, CommandResult, SandboxConfig
from swe_srl.runtime.proxy import Proxy
from swe_srl.runtime.recorder import Recorder
from swe_srl.runtime.shell import Answer, Shell, Stream, quote
from swe_srl.runtime.worktree import diff_of

_TTY_NOTICE = re.compile(rb"bash: \[\d+: \d+ \(\d+\)\] tcsetattr: [^\n]*\n")
_KILLED = 137
"""Exit code of what was killed, as of a process that got signal 9."""
SERVICE_TIMEOUT_S = 120.0
"""For what we ask of a box ourselves: reading, writing, diffs."""

# $1: pid of the agent's shell, which is spared; $2: when the command began, in hundredths of a second since boot. Kills every
# process that began since then, whatever its parent, group or session; older ones (a server started by an earlier command)
# live on. Only builtins: a box at its limit of processes cannot fork. Many rounds: what is killed may have forked just
# before, and on a busy machine takes its time to die.
# `main` is the box's own program, the first process after init, without which it may end; $PPID is what started this shell.
# In /proc/PID/stat the start is field 22, in hundredths of a second since boot like /proc/uptime.
_KILL = r"""
main=
for pid in /proc/[0-9]*; do
  pid=${pid#/proc/}
  (( pid > 1 && (main == 0 || pid < main) )) && main=$pid
done
kill_since() {
  local shell=$1 since=$2 rest line pid start round found
  for (( round = 0; round < 100; round++ )); do
    found=0
    for pid in /proc/[0-9]*; do
      pid=${pid#/proc/}
      [[ $pid == 1 || $pid == "$main" || $pid == "$shell" || $pid == $$ || $pid == $PPID ]] && continue
      { IFS= read -r line <"/proc/$pid/stat"; } 2>/dev/null || continue
      line=${line##*) }
      [[ $line == Z* ]] && continue
      rest=($line); start=${rest[19]}
      (( start >= since )) && kill -9 "$pid" && found=1
    done
    (( found )) || return 0
  done 2>/dev/null
}
"""


class Machine(Protocol):
    """What a backend brings: an image's files and processes kept apart, in which a bash can be started."""

    name: str

    def start_bash(self, cwd: str) -> Stream:
        """Start `shell.BASH` in `cwd`, its error output thrown away. Raises SandboxError when it cannot be."""

    def num_bytes_written(self) -> int:
        """What the box holds on the disk beyond its image."""

    def remove(self) -> None:
        """End every process in it and take its files away; once is enough, twice is harmless."""


class Box(Closing):
    """See `Sandbox` for what it promises. For one thread at a time."""

    def __init__(self, config: SandboxConfig, machine: Machine, workdir: str) -> None:
        self.workdir = workdir
        self.machine: Machine | None = machine
        """None once the box is closed."""
        self.name = machine.name
        self._config = config
        self._shell: Shell | None = None
        self._service: Shell | None = None
        self._proxy: Proxy | None = None
        self.base_commit = ""
        """HEAD when the box was opened; empty while there is no repository."""
        self.after_close: Callable[[], None] = lambda: None
        """Called once, when the box is closed."""
        try:
            self._restart_service()
            if config.allowed_hosts():
                self._proxy = Proxy(machine.start_bash("/"), config.allowed_hosts())
            self._restart_shell(workdir)
            self._find_base()
        except BaseException:
            self.close()
            raise

    def run(self, command: str, *, timeout_s: float) -> CommandResult:
        """See `Sandbox.run`. After `exit` or `exec` a new shell stands where the last one stood before that command."""
        shell = self._alive(self._shell)
        if "\0" in command:
            return CommandResult("bash: a command cannot hold a NUL byte\n", 2)
        limit = self._config.limits.output_bytes
        began = time.monotonic()
        if self._config.session == "fresh":
            answer = shell.ask_apart(command, self.workdir, timeout_s=timeout_s, limit=limit, watch=self._is_overfull)
        else:
            answer = shell.ask(command, timeout_s=timeout_s, limit=limit, watch=self._is_overfull)
        duration_s = time.monotonic() - began
        if answer.exit_code is None:
            self._kill_since(shell, began)
        elif answer.died:
            self._restart_shell(shell.cwd)
        output = _without_notices(answer).decode("utf-8", "replace")
        if answer.stopped:
            words = f"killed: this box holds more than its {self._config.limits.disk_mib} MiB of disk\n"
            return CommandResult(output + words, _KILLED, False, answer.num_bytes_dropped, duration_s)
        return CommandResult(output, answer.exit_code, answer.exit_code is None, answer.num_bytes_dropped, duration_s)

    def read_file(self, path: str) -> bytes:
        """See `Sandbox.read_file`; a relative path starts at the working directory."""
        name = quote(self._absolute(path))
        answer = self.serve(
            f"if [[ -d {name} ]]; then (exit 121); elif [[ ! -e {name} ]]; then (exit 122); "
            f"elif [[ ! -f {name} ]]; then (exit 123); else cat -- {name}; fi",
            limit=None,
        )
        if answer.exit_code == 121:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if answer.exit_code == 122:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if answer.exit_code == 123:  # a pipe or a device may never end
            raise OSError(errno.EINVAL, "is no regular file", path)
        if answer.exit_code != 0:
            raise OSError(errno.EIO, _words(answer) or "cannot be read", path)
        return answer.output

    def write_file(self, path: str, content: bytes) -> None:
        """See `Sandbox.write_file`. An existing file keeps its mode. Raises IsADirectoryError, or OSError when it cannot be written."""
        absolute = self._absolute(path)
        name, parent = quote(absolute), quote(posixpath.dirname(absolute))
        opened = self.serve(
            f"mkdir -p -- {parent} && if [[ -d {name} ]]; then (exit 121); elif [[ -p {name} || -S {name} ]]; then (exit 123); else : >> {name}; fi"
        )
        if opened.exit_code == 121:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if opened.exit_code == 123:
            raise OSError(errno.EINVAL, "is a pipe or a socket", path)
        if opened.exit_code != 0:
            raise OSError(errno.EACCES, _words(opened) or "cannot be written", path)
        service = self._alive(self._service)
        # What `head` does not take stays in the stream, and a shell that went on would run it as commands.
        written = service.feed(
            f"head -c {len(content)} <&19 > {name} || exit 123", content, timeout_s=SERVICE_TIMEOUT_S
        )
        if written.exit_code != 0:
            self._restart_service()
            raise OSError(errno.EIO, _words(written).removesuffix("exit").strip() or "was written in part only", path)

    def diff(self) -> str:
        """See `Sandbox.diff`."""
        self._find_base()
        return diff_of(self, self.base_commit) if self.base_commit else ""

    def serve(self, script: str, *, limit: int | None = 1_000_000) -> Answer:
        """Run our own `script` in the service shell, which no command of an agent has touched."""
        service = self._alive(self._service)
        answer = service.ask(script, timeout_s=SERVICE_TIMEOUT_S, limit=limit)
        if answer.died:
            raise SandboxError(f"box {self.name} is gone: it has stopped or was removed; open another")
        if answer.exit_code is None:
            raise SandboxError(
                f"box {self.name} did not answer within {SERVICE_TIMEOUT_S:.0f} s: its disk or memory may be exhausted; open another"
            )
        return answer

    def record(self, pipe: str) -> Recorder:
        """Make a named pipe at the absolute path `pipe`, and keep what is written to it outside of the box."""
        if self.machine is None:
            raise SandboxError(f"box {self.name} is closed: open another")
        return Recorder(self.machine.start_bash("/"), pipe, self.serve)

    def close(self) -> None:
        """Remove the machine; once is enough, twice is harmless."""
        machine, self.machine = self.machine, None
        for shell in (self._shell, self._service):
            if shell is not None:
                shell.close()
        if self._proxy is not None:
            self._proxy.close()
        self._shell = self._service = self._proxy = None
        if machine is not None:
            try:
                machine.remove()
            finally:
                self.after_close()

    def _alive(self, shell: Shell | None) -> Shell:
        if shell is None or self.machine is None:
            raise SandboxError(f"box {self.name} is closed: open another")
        return shell

    def _absolute(self, path: str) -> str:
        if "\0" in path:
            raise FileNotFoundError(errno.ENOENT, "a path cannot hold a NUL byte", path)
        return posixpath.join(self.workdir, path)

    def _find_base(self) -> None:
        if not self.base_commit:
            answer = self.serve(
                f"git -C {quote(self.workdir)} -c safe.directory='*' rev-parse --verify --quiet HEAD 2>/dev/null"
            )
            self.base_commit = answer.output.decode("ascii", "replace").strip() if answer.exit_code == 0 else ""

    def _is_overfull(self) -> bool:
        return self.machine is not None and self.machine.num_bytes_written() > self._config.limits.disk_mib << 20

    def _restart_service(self) -> None:
        if self._service is not None:
            self._service.close()
        self._service = None
        service = self._start_shell("/")
        service.ask(_KILL, timeout_s=SERVICE_TIMEOUT_S)
        self._service = service

    def _restart_shell(self, cwd: str) -> None:
        if self._shell is not None:
            self._shell.close()
        self._shell = None
        # A command may have removed the directory that its shell stood in.
        where = cwd if self.serve(f"[[ -d {quote(cwd)} ]]").exit_code == 0 else "/"
        try:
            self._shell = self._start_shell(where)
        except SandboxError:
            # At its limit of processes (a fork bomb in the background) a box takes no new shell: end everything in it.
            self.serve("kill_since 0 0")
            self._shell = self._start_shell(where)

    def _start_shell(self, cwd: str) -> Shell:
        if self.machine is None:
            raise SandboxError(f"box {self.name} is closed: open another")
        return Shell(self.machine.start_bash(cwd), cwd)

    def _kill_since(self, shell: Shell, began: float) -> None:
        """Kill what was started since `began`; the shell goes on, with its state, unless it does not let go of the command."""
        since = self._box_time(began)
        for patience_s in (0.5, 1.5):
            # The shell is told first, so that it gives up the rest of the command.
            self.serve(f"kill -USR1 {shell.pid}; kill_since {shell.pid} {since}")
            if shell.catch_up(patience_s):
                # It may have started one more process before it heard.
                self.serve(f"kill_since {shell.pid} {since}")
                return
        self.serve(f"kill -9 {shell.pid}; kill_since {shell.pid} {since}; :")
        self._restart_shell(shell.cwd)

    def _box_time(self, moment: float) -> int:
        """`moment` of our monotonic clock in hundredths of a second since the box's machine booted: rather early than late."""
        ahead_s = []
        # On a busy machine an answer may come late and make the box's clock look slow; the best of three.
        for _ in range(3):
            answer = self.serve("read -r up _ </proc/uptime; builtin printf %s $up")
            ahead_s.append(float(answer.output) - time.monotonic())
        return int((moment + max(ahead_s)) * 100) - 1


def _without_notices(answer: Answer) -> bytes:
    """What an interactive bash says and a shell that reads a script does not: `exit`, and that there is no terminal to reset."""
    output = _TTY_NOTICE.sub(b"", answer.output)
    return output.removesuffix(b"exit\n") if answer.died else output


def _words(answer: Answer) -> str:
    return answer.output[:300].decode("utf-8", "replace").strip()
