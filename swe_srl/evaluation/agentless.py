"""The mode `agentless`: locate files from the repository's listing, mend them whole by SEARCH/REPLACE, choose among the patches.

The shape of Agentless-mini (SWE-RL, arXiv 2502.18449), which the paper's end-to-end numbers were taken with: files are
located and given whole, without a step for classes or lines. What it has beyond that, reproduction and regression tests to
choose by, is not here: patches are chosen among by votes, and never by tests that decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from swe_srl.agent import PROMPT_TOO_LONG
from swe_srl.evaluation.base import Attempt, Bench, Candidate, Result
from swe_srl.evaluation.editing import edit_prompt, try_answer
from swe_srl.evaluation.locate import list_files, locate_prompt, named_files
from swe_srl.evaluation.rounds import Ask, Ending, Log, Work, run_rounds
from swe_srl.evaluation.sources import Count, read_source, room, token_counter
from swe_srl.policy.base import Completion, Sampling
from swe_srl.rewards.choose import VOTES, chooser
from swe_srl.runtime.base import Sandbox, SandboxConfig
from swe_srl.settings import Config

NOT_LOCATED = "not_located"


class AgentlessLimits(Config):
    """When an attempt ends before its patches are asked for."""

    max_usd: float | None = Field(None, gt=0)
    """Of an attempt's answers, where the policy knows its price; checked before each round of questions, which may go beyond it."""
    max_seconds: float | None = Field(1800.0, gt=0)
    """Of an attempt, from the opening of its box; checked likewise."""


class AgentlessModeConfig(Config):
    """Locate files, mend them, choose: no agent, two questions."""

    type: Literal["agentless"] = "agentless"
    top_files: int = Field(5, ge=1)
    """Files that may be named, and are then shown whole."""
    num_samples: int = Field(1, ge=1)
    """Patches asked for; more than one needs a temperature."""
    choose: str = VOTES
    """Which patch is handed in: `votes`, the one made most often; or a reward, the one most like the others by it; or `first`."""
    sampling: Sampling = Sampling(max_new_tokens=4096, stop="")
    locate_tokens: int = Field(1024, ge=1)
    """Longest answer to the first question."""
    max_prompt_tokens: int = Field(24_000, ge=512)
    """Of each prompt; less where the model reads less. Files that do not fit lose their middles, listings their least likely names."""
    max_statement_chars: int = Field(12_000, ge=100)
    """A longer problem statement loses its middle."""
    suffixes: tuple[str, ...] = (
        ".py", ".pyx", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".js", ".jsx", ".ts", ".tsx", ".rb", ".php",
    )  # fmt: skip
    """Of the files that are listed; tests are not."""
    limits: AgentlessLimits = AgentlessLimits()
    sandbox: SandboxConfig = SandboxConfig()
    max_parallel: int = Field(8, ge=1)
    """Boxes at the same time."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.num_samples > 1 and self.sampling.temperature == 0:
            raise ValueError(
                f"num_samples = {self.num_samples} with temperature 0 is the same patch again: set sampling.temperature"
            )
        return self

    def build(self) -> AgentlessMode:
        """The mode of these settings. Raises ConfigError for a way to choose that does not exist."""
        return AgentlessMode(self)


class AgentlessMode:
    """See Mode."""

    needs_gold_files = False
    max_rounds = 2

    def __init__(self, config: AgentlessModeConfig) -> None:
        self._config = config
        self._choose = chooser(config.choose)

    def run(self, attempts: Sequence[Attempt], bench: Bench) -> Iterator[Result]:
        """See Mode."""
        count = token_counter(bench.policy)

        def begin(attempt: Attempt, box: Sandbox, log: Log) -> Work:
            return self._work(attempt, box, log, bench, count)

        yield from run_rounds(attempts, begin, bench, mode="agentless", max_parallel=self._config.max_parallel)

    def _work(self, attempt: Attempt, box: Sandbox, log: Log, bench: Bench, count: Count) -> Work:
        """Locate, mend, choose."""
        config, seed = self._config, attempt.seed(self._config.sampling.seed)
        known = list_files(box, config.suffixes)
        brief = config.sampling.model_copy(update={"seed": seed, "max_new_tokens": config.locate_tokens})
        question = locate_prompt(
            attempt.task, known, most=config.top_files, room=self._room(bench, config.locate_tokens), count=count,
            max_statement_chars=config.max_statement_chars,
        )  # fmt: skip
        if question is None:
            return Ending(PROMPT_TOO_LONG)
        log.num_tokens_cut += question.num_tokens_cut
        (answer,) = yield Ask(question.messages, brief)
        if answer.finish_reason == PROMPT_TOO_LONG:
            log.judged(answer, "", f"{PROMPT_TOO_LONG}: the model reads less than the budget of the input")
            return Ending(PROMPT_TOO_LONG)
        paths = self._located(answer, known, box, log)
        sources = {source.path: source for path in paths if (source := read_source(box, path))}
        if not sources:
            return Ending(NOT_LOCATED)
        if spent := self._spent(log):
            return Ending(spent)
        prompt = edit_prompt(
            attempt.task, list(sources.values()), room=self._room(bench, config.sampling.max_new_tokens), count=count,
            max_statement_chars=config.max_statement_chars,
        )  # fmt: skip
        if prompt is None:
            return Ending(PROMPT_TOO_LONG)
        log.num_tokens_cut += prompt.num_tokens_cut
        answers = yield Ask(prompt.messages, config.sampling.model_copy(update={"seed": seed + 1}), config.num_samples)
        tried = [try_answer(answer, box, sources, log) for answer in answers]
        chosen = self._choose([one.patch for one in tried])
        candidates = tuple(
            Candidate(
                task_id=attempt.task.task_id,
                model=bench.model,
                attempt=attempt.number,
                sample=number,
                exit_status=one.exit_status,
                patch=one.patch,
                chosen=number == chosen,
            )
            for number, one in enumerate(tried)
        )
        return Ending(tried[chosen].exit_status, tried[chosen].patch, candidates)

    def _room(self, bench: Bench, max_new_tokens: int) -> int:
        return room(bench.policy, self._config.max_prompt_tokens, max_new_tokens)

    def _located(self, answer: Completion, known: Sequence[str], box: Sandbox, log: Log) -> list[str]:
        paths = named_files(answer.text, known, most=self._config.top_files, workdir=box.workdir)
        if not paths:
            log.num_malformed += 1
        log.judged(answer, "", f"located: {', '.join(paths)}" if paths else f"{NOT_LOCATED}: no listed file is named")
        return paths

    def _spent(self, log: Log) -> str:
        """The exit status of an attempt that has used up what it may; empty where it has not."""
        limits = self._config.limits
        if limits.max_usd and log.usage.cost_usd >= limits.max_usd:
            return "cost_limit"
        if limits.max_seconds and log.seconds >= limits.max_seconds:
            return "time_limit"
        return ""
