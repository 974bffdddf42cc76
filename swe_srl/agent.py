"""Policy + Task + Sandbox → EpisodeResult: a model acts in a box until it submits.

One copy for teaching, RLVR and evaluation. `Episode` is the state machine: it shows what the model sees next and takes
its answer. `run_episode` drives one to its end; `episodes.run_episodes` drives many.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from pydantic import Field

from swe_srl.dialogue import ContextConfig, Message, parse, render, shorten
from swe_srl.errors import ApparatusError
from swe_srl.policy.base import Completion, Policy, Sampling
from swe_srl.runtime.base import Sandbox, SandboxConfig
from swe_srl.schema import Prediction, Task, Turn, Usage
from swe_srl.settings import Config

PROMPT_TOO_LONG = "prompt_too_long"
"""Finish reason of a policy that could not read the whole dialogue: the episode has outgrown the model."""

MALFORMED = """\
Your answer was not understood: {problem}. Nothing was run. Answer with <think>…</think> and then exactly one action, like
<think>
why
</think>
<function=bash>
<parameter=command>ls</parameter>
</function>"""


class AgentLimits(Config):
    """When an episode ends without a submission."""

    max_turns: int = Field(30, ge=1)
    max_consecutive_malformed: int = Field(3, ge=1)
    """Answers in a row in which no action could be found; then the exit status is `format_errors`."""
    max_completion_tokens: int | None = Field(None, ge=1)
    """Of all answers together."""
    max_usd: float | None = Field(None, gt=0)
    """Of all answers together, where the policy knows its price; checked after each turn, which may go beyond it."""
    max_seconds: float | None = Field(1800.0, gt=0)
    """Of the whole episode, from the opening of its box; checked after each turn."""
    command_timeout_s: float = Field(60.0, gt=0)
    max_output_chars: int = Field(20_000, ge=100)
    """Of one observation that is kept; a longer one loses its middle."""


class EpisodeResult(NamedTuple):
    """What became of one episode."""

    number: int
    """Position of the episode among those that were asked for."""
    task: Task
    turns: tuple[Turn, ...]
    exit_status: str
    """`submitted`, `turn_limit`, `format_errors`, `token_limit`, `cost_limit`, `time_limit`; empty after an infrastructure failure."""
    patch: str
    """The diff as the box was left, whatever the exit status; empty after an infrastructure failure."""
    usage: Usage = Usage()
    duration_s: float = 0.0
    infra_failure: str = ""
    """Why the apparatus failed; empty when it did not."""
    completions: tuple[Completion, ...] = ()
    """What the policy wrote, one for each turn, with ids and log-probabilities where it tells them."""

    @property
    def num_malformed(self) -> int:
        """Turns in which no action could be found."""
        return sum(turn.command is None for turn in self.turns)

    def prediction(self, model: str) -> Prediction:
        """The result as something to grade."""
        return Prediction(
            task_id=self.task.task_id,
            model=model,
            patch=self.patch,
            exit_status=self.exit_status,
            num_turns=len(self.turns),
            num_malformed=self.num_malformed,
            usage=self.usage,
            duration_s=self.duration_s,
            infra_failure=self.infra_failure,
        )


class Episode:
    """One model at work on one task. The caller owns the box."""

    def __init__(
        self,
        task: Task,
        sandbox: Sandbox,
        context: ContextConfig,
        limits: AgentLimits,
        *,
        index: int = 0,
        record_trees: bool = False,
    ) -> None:
        """Begin an episode; nothing is run yet.

        Args:
            task: what is to be done.
            sandbox: a fresh box of the task.
            context: what of the past the model is shown.
            limits: when to stop.
            index: position among the episodes that were asked for.
            record_trees: take the git tree's hash after every command, so that a replay can compare states.
        """
        self.task = task
        self.sandbox = sandbox
        self.index = index
        self.turns: list[Turn] = []
        self.exit_status = ""
        self._context = context
        self._limits = limits
        self._record_trees = record_trees
        self._usage = Usage()
        self._completions: list[Completion] = []
        self._malformed_in_a_row = 0
        self._begun = time.monotonic()

    @property
    def finished(self) -> bool:
        """No further answer is due."""
        return bool(self.exit_status)

    def messages(self) -> list[Message]:
        """What the model is shown before its next answer."""
        return render(self.task, self.turns, self._context)

    def act(self, completion: Completion) -> Turn:
        """Take the model's answer: run its action, or say what was wrong with it.

        Raises SandboxError when the box is gone.
        """
        if self.finished:
            raise RuntimeError(f"the episode of {self.task.task_id} is finished: {self.exit_status}")
        self._usage += Usage(
            prompt_tokens=completion.num_prompt_tokens,
            completion_tokens=completion.num_tokens,
            cached_tokens=completion.num_cached_tokens,
            cost_usd=completion.cost_usd,
        )
        turn = self._run(completion)
        self.turns.append(turn)
        self._completions.append(completion)
        self._malformed_in_a_row = 0 if turn.command else self._malformed_in_a_row + 1
        self.exit_status = self._stop_reason(turn, completion)
        return turn

    def result(self) -> EpisodeResult:
        """What became of it. Takes the diff, so the box must still be there."""
        return self._ended(self.exit_status, self.sandbox.diff())

    def broken(self, failure: ApparatusError) -> EpisodeResult:
        """What is recorded when the apparatus failed."""
        return self._ended("", "", str(failure))

    def _ended(self, exit_status: str, patch: str, infra_failure: str = "") -> EpisodeResult:
        return EpisodeResult(
            self.index, self.task, tuple(self.turns), exit_status, patch, self._usage, time.monotonic() - self._begun,
            infra_failure, tuple(self._completions),
        )  # fmt: skip

    def _run(self, completion: Completion) -> Turn:
        parsed = parse(completion.text)
        if parsed.command is None:
            problem = parsed.problem
            if completion.finish_reason == "length":
                problem += " (it was cut at the length limit: be brief)"
            return Turn(
                thought=parsed.thought,
                command=None,
                completion=completion.text,
                observation=MALFORMED.format(problem=problem),
            )
        if parsed.command.tool == "submit":
            return Turn(
                thought=parsed.thought, command=parsed.command, completion=completion.text, observation="Submitted.", exit_code=0,
                tree=self._tree(),
            )  # fmt: skip
        from swe_srl.runtime.tools import execute

        result = execute(parsed.command, self.sandbox, timeout_s=self._limits.command_timeout_s)
        return Turn(
            thought=parsed.thought,
            command=parsed.command,
            completion=completion.text,
            observation=shorten(result.output, self._limits.max_output_chars),
            exit_code=result.exit_code,
            timed_out=result.timed_out,
            tree=self._tree(),
            duration_s=result.duration_s,
        )

    def _tree(self) -> str:
        if not self._record_trees:
            return ""
        from swe_srl.runtime.history import tree_hash

        return tree_hash(self.sandbox)

    def _stop_reason(self, turn: Turn, completion: Completion) -> str:
        limits = self._limits
        if turn.command and turn.command.tool == "submit":
            return "submitted"
        if completion.finish_reason == PROMPT_TOO_LONG:
            return "token_limit"
        if self._malformed_in_a_row >= limits.max_consecutive_malformed:
            return "format_errors"
        if len(self.turns) >= limits.max_turns:
            return "turn_limit"
        if limits.max_completion_tokens and self._usage.completion_tokens >= limits.max_completion_tokens:
            return "token_limit"
        if limits.max_usd and self._usage.cost_usd >= limits.max_usd:
            return "cost_limit"
        if limits.max_seconds and time.monotonic() - self._begun >= limits.max_seconds:
            return "time_limit"
        return ""


def run_episode(policy: Policy, episode: Episode, sampling: Sampling) -> EpisodeResult:
    """Drive one episode to its end. Turn i is sampled with `sampling.seed` + i.

    Raises ApparatusError when box or endpoint fail. The box stays open; it is the caller's.
    """
    while not episode.finished:
        turn_sampling = sampling.model_copy(update={"seed": sampling.seed + len(episode.turns)})
        [[completion]] = policy.complete([episode.messages()], turn_sampling)
        episode.act(completion)
    return episode.result()


OpenBox = Callable[[Task], Sandbox]
"""Opens a fresh box of a task."""


def open_task_box(task: Task, config: SandboxConfig, purpose: str) -> Sandbox:
    """A fresh box of a task for an agent, its image pulled or built where it is missing and the repository's future taken out.

    `purpose` is for who reads `docker ps`. Raises EngineUnavailable, ImageMissing or SandboxError.
    """
    from swe_srl.runtime.open import BoxRequest, open_box

    name = f"{purpose}-{task.task_id}"
    return open_box(config, BoxRequest(task.image, task.workdir, task.image_context, without_future=True, name=name))
