"""A box without Docker and a model without weights, for tests."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from swe_srl.dialogue import Message, format_completion
from swe_srl.errors import SandboxError
from swe_srl.policy.base import Completion, Sampling
from swe_srl.runtime.base import Closing, CommandResult
from swe_srl.schema import Command

Answer = str | CommandResult | Callable[["FakeSandbox"], "str | CommandResult"]
"""Output of a command that succeeds, a whole result, or a function of the box, which may change its files."""


class Served(NamedTuple):
    """What a box's own shell answers to our scripts."""

    output: bytes
    exit_code: int | None = 0


class FakeSandbox(Closing):
    """A box in memory: files as text, and commands answered from a table. Unknown commands say so, with exit code 127."""

    def __init__(
        self,
        files: Mapping[str, str] | None = None,
        answers: Mapping[str, Answer] | None = None,
        *,
        workdir: str = "/testbed",
        breaks_at: int | None = None,
    ) -> None:
        """Make a box.

        Args:
            files: path → text; relative paths are relative to `workdir`, and form the repository that `diff` speaks of.
            answers: command → what it gives.
            workdir: where the repository is.
            breaks_at: the box is gone at this command, counted from 0.
        """
        self.workdir = workdir
        self.files = {self._path(path): text.encode() for path, text in (files or {}).items()}
        self.commands: list[str] = []
        """Every command that was run, in order."""
        self.closed = False
        self._before = dict(self.files)
        self._answers = dict(answers or {})
        self._breaks_at = breaks_at

    def run(self, command: str, *, timeout_s: float) -> CommandResult:  # noqa: ARG002  a fake never takes long
        """Answer from the table."""
        self._check()
        self.commands.append(command)
        if self._breaks_at is not None and len(self.commands) > self._breaks_at:
            self.closed = True
            raise SandboxError("the box is gone: a fake one, as it was told")
        answer = self._answers.get(command)
        if callable(answer):
            answer = answer(self)
        if answer is None:
            return CommandResult(f"fake: no answer for {command!r}\n", 127)
        return CommandResult(answer, 0) if isinstance(answer, str) else answer

    def read_file(self, path: str) -> bytes:
        """The bytes of a file."""
        self._check()
        path = self._path(path)
        if any(known.startswith(path.rstrip("/") + "/") for known in self.files):
            raise IsADirectoryError(path)
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def write_file(self, path: str, content: bytes) -> None:
        """Write a file."""
        self._check()
        self.files[self._path(path)] = content

    def diff(self) -> str:
        """Git diff of the files in `workdir` since the box was made."""
        self._check()
        root = self.workdir + "/"
        out = []
        for path in sorted({*self.files, *self._before}):
            old, new = self._before.get(path), self.files.get(path)
            if old == new or not path.startswith(root):
                continue
            name = path.removeprefix(root)
            out.append(f"diff --git a/{name} b/{name}\n")
            out += difflib.unified_diff(
                (old or b"").decode().splitlines(keepends=True),
                (new or b"").decode().splitlines(keepends=True),
                f"a/{name}" if old is not None else "/dev/null",
                f"b/{name}" if new is not None else "/dev/null",
            )
        return "".join(out)

    def serve(self, script: str, *, limit: int | None = None) -> Served:  # noqa: ARG002  a box's own door for our scripts
        """What `runtime.history.tree_hash` asks of a box: a hash of the repository."""
        self._check()
        tree = hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()[:40]
        return Served(tree.encode() if "write-tree" in script else b"")

    def close(self) -> None:
        """Close the box; closing twice is harmless."""
        self.closed = True

    def _path(self, path: str) -> str:
        return path if path.startswith("/") else f"{self.workdir}/{path}"

    def _check(self) -> None:
        if self.closed:
            raise SandboxError("the box is closed")


def completion(command: str = "", *, tool: str = "bash", thought: str = "go on", **arguments: str) -> str:
    """What a model writes for one action, e.g. `completion("ls")` or `completion(tool="submit")`."""
    given = {"command": command, **arguments} if command else arguments
    return format_completion(thought, Command(tool=tool, arguments=given))


class ScriptedPolicy:
    """A model that says what it was told to: from a list, one answer after the other, or by a function of the dialogue."""

    def __init__(
        self, answers: Sequence[str] | Callable[[Sequence[Message], Sampling], str], name: str = "scripted"
    ) -> None:
        self.name = name
        self.calls: list[tuple[list[list[Message]], Sampling]] = []
        """Every call: its prompts and how it was sampled."""
        self._answers = answers
        self._position = 0

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """Scripted answers; prompt and answer count one token per word."""
        self.calls.append(([list(prompt) for prompt in prompts], sampling))
        return [
            [self._answer(prompt, sampling.model_copy(update={"seed": seed})) for _ in range(num_samples)]
            for prompt, seed in zip(prompts, seeds or [sampling.seed] * len(prompts), strict=True)
        ]

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, prompt: Sequence[Message], sampling: Sampling) -> Completion:
        if callable(self._answers):
            text = self._answers(prompt, sampling)
        else:
            text = self._answers[self._position]
            self._position += 1
        num_prompt_tokens = sum(len(message["content"].split()) for message in prompt)
        return Completion(text=text, num_prompt_tokens=num_prompt_tokens, num_tokens=len(text.split()))
