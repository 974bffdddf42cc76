"""Image → Sandbox: a Docker container without network, with two shells in it.

One shell is the agent's. The other is ours: it reads and writes files, asks git for diffs, and kills what has run out of
time. It is started before the agent's, so it works when the agent's is stuck or the box is at its limit of processes.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import time
import uuid
from types import TracebackType
from typing import Self

from docker import DockerClient
from docker.models.containers import Container
from docker.types import LogConfig

from swe_srl.errors import SandboxError
from swe_srl.runtime.base import CommandResult, SandboxConfig
from swe_srl.runtime.engine import LABEL, NAME_LABEL, OWNER_LABEL, client, engine_errors, owner_label, remove_container
from swe_srl.runtime.shell import Answer, Shell, quote
from swe_srl.runtime.worktree import diff_of

_TTY_NOTICE = re.compile(rb"bash: \[\d+: \d+ \(\d+\)\] tcsetattr: [^\n]*\n")
SERVICE_TIMEOUT_S = 120.0
"""For what we ask of a box ourselves: reading, writing, diffs."""

# $1: pid of the agent's shell, which is spared; $2: when the command began, in hundredths of a second since boot. Kills every
# process that began since then, whatever its parent, group or session; older ones (a server started by an earlier command)
# live on. Only builtins: a box at its limit of processes cannot fork. Many rounds: what is killed may have forked just
# before, and on a busy machine takes its time to die.
# `main` is the box's `sleep`, the first process after init: without it the box ends.
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
      [[ $pid == 1 || $pid == "$main" || $pid == "$shell" || $pid == $$ ]] && continue
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


class DockerSandbox:
    """A box in a Docker container; see `Sandbox` for what it promises. For one thread at a time."""

    def __init__(self, config: SandboxConfig, image: str, workdir: str, name: str) -> None:
        self.workdir = workdir
        self.name = name or f"box-{uuid.uuid4().hex[:8]}"
        self._config = config
        self._client = client()
        self._container: Container | None = None
        self._shell: Shell | None = None
        self._service: Shell | None = None
        self.base_commit = ""
        """HEAD when the box was opened; empty while there is no repository."""
        try:
            self._start(image)
        except BaseException:
            self.close()
            raise

    @property
    def container_id(self) -> str:
        """The engine's name for the box."""
        return str(self._container.id) if self._container is not None else ""

    def run(self, command: str, *, timeout_s: float) -> CommandResult:
        """See `Sandbox.run`. After `exit` or `exec` a new shell stands where the last one stood before that command."""
        shell = self._alive(self._shell)
        if "\0" in command:
            return CommandResult("bash: a command cannot hold a NUL byte\n", 2)
        limit = self._config.limits.output_bytes
        began = time.monotonic()
        if self._config.session == "fresh":
            answer = shell.ask_apart(command, self.workdir, timeout_s=timeout_s, limit=limit)
        else:
            answer = shell.ask(command, timeout_s=timeout_s, limit=limit)
        duration_s = time.monotonic() - began
        timed_out = answer.exit_code is None
        if timed_out:
            self._kill_since(shell, began)
        elif answer.died:
            self._restart_shell(shell.cwd)
        output = _without_notices(answer).decode("utf-8", "replace")
        return CommandResult(output, answer.exit_code, timed_out, answer.num_bytes_dropped, duration_s)

    def read_file(self, path: str) -> bytes:
        """See `Sandbox.read_file`; a relative path starts at the working directory."""
        name = quote(self._absolute(path))
        answer = self.serve(
            f"if [[ -d {name} ]]; then (exit 121); elif [[ ! -e {name} ]]; then (exit 122); else cat -- {name}; fi",
            limit=None,
        )
        if answer.exit_code == 121:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if answer.exit_code == 122:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if answer.exit_code != 0:
            raise OSError(errno.EIO, _words(answer) or "cannot be read", path)
        return answer.output

    def write_file(self, path: str, content: bytes) -> None:
        """See `Sandbox.write_file`. An existing file keeps its mode. Raises IsADirectoryError, or OSError when it cannot be written."""
        absolute = self._absolute(path)
        name, parent = quote(absolute), quote(posixpath.dirname(absolute))
        opened = self.serve(f"mkdir -p -- {parent} && if [[ -d {name} ]]; then (exit 121); else : >> {name}; fi")
        if opened.exit_code == 121:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
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
            raise SandboxError(f"box {self.name} is gone: its container has stopped or was removed; open another")
        if answer.exit_code is None:
            raise SandboxError(
                f"box {self.name} did not answer within {SERVICE_TIMEOUT_S:.0f} s: its disk or memory may be exhausted; open another"
            )
        return answer

    def close(self) -> None:
        """Remove the container; once is enough, twice is harmless."""
        container, self._container = self._container, None
        for shell in (self._shell, self._service):
            if shell is not None:
                shell.close()
        self._shell = self._service = None
        if container is not None:
            remove_container(container)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, image: str) -> None:
        limits = self._config.limits
        with engine_errors(f"starting box {self.name} from {image}"):
            self._container = self._client.containers.create(
                image,
                entrypoint=["sleep", "infinity"],
                working_dir=self.workdir,
                environment=dict(self._config.environment),
                use_config_proxy=False,  # else the SDK copies proxy settings of the host into the box
                network_mode="none",
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                init=True,
                nano_cpus=int(min(limits.cpus, _num_cpus(self._client)) * 1e9),
                mem_limit=f"{limits.memory_mib}m",
                memswap_limit=f"{limits.memory_mib}m",
                pids_limit=limits.pids,
                log_config=LogConfig(type="none"),
                labels={LABEL: "box", OWNER_LABEL: owner_label(), NAME_LABEL: self.name},
            )
            self._container.start()
        self._restart_service()
        self._restart_shell(self.workdir)
        self._find_base()

    def _alive(self, shell: Shell | None) -> Shell:
        if shell is None or self._container is None:
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

    def _restart_service(self) -> None:
        if self._service is not None:
            self._service.close()
        self._service = None
        service = Shell(self._client, self.container_id, "/")
        service.ask(_KILL, timeout_s=SERVICE_TIMEOUT_S)
        self._service = service

    def _restart_shell(self, cwd: str) -> None:
        if self._shell is not None:
            self._shell.close()
        self._shell = None
        # A command may have removed the directory that its shell stood in.
        where = cwd if self.serve(f"[[ -d {quote(cwd)} ]]").exit_code == 0 else "/"
        try:
            self._shell = Shell(self._client, self.container_id, where)
        except SandboxError:
            # At its limit of processes (a fork bomb in the background) a box takes no new shell: end everything in it.
            self.serve("kill_since 0 0")
            self._shell = Shell(self._client, self.container_id, where)

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


_cpus: dict[int, float] = {}


def _num_cpus(engine: DockerClient) -> float:
    """Processors of the engine's machine: it refuses a box that asks for more."""
    if os.getpid() not in _cpus:
        _cpus[os.getpid()] = float(engine.info()["NCPU"])
    return _cpus[os.getpid()]


def _without_notices(answer: Answer) -> bytes:
    """What an interactive bash says and a shell that reads a script does not: `exit`, and that there is no terminal to reset."""
    output = _TTY_NOTICE.sub(b"", answer.output)
    return output.removesuffix(b"exit\n") if answer.died else output


def _words(answer: Answer) -> str:
    return answer.output[:300].decode("utf-8", "replace").strip()
