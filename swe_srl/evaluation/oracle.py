"""The mode `oracle`: the model is given the files that the gold patch changes, and mends them in one answer.

The setting of SWE-bench's oracle retrieval and of SRL's 'oracle file edit' (arXiv 2510.25992): finding the place is not
measured, mending it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from swe_srl.agent import PROMPT_TOO_LONG
from swe_srl.errors import SandboxError, UserError
from swe_srl.evaluation.base import Attempt, Bench, Result
from swe_srl.evaluation.editing import edit_prompt, try_answer
from swe_srl.evaluation.rounds import Ask, Ending, Log, Work, run_rounds
from swe_srl.evaluation.sources import Source, read_source, room, token_counter
from swe_srl.policy.base import Sampling
from swe_srl.runtime.base import Sandbox, SandboxConfig
from swe_srl.settings import Config


class OracleModeConfig(Config):
    """The files of the gold patch are given; one answer with SEARCH/REPLACE edits."""

    type: Literal["oracle"] = "oracle"
    sampling: Sampling = Sampling(max_new_tokens=4096, stop="")
    max_prompt_tokens: int = Field(24_000, ge=512)
    """Of the whole prompt; less where the model reads less. Files that do not fit lose their middles, the longest first."""
    max_statement_chars: int = Field(12_000, ge=100)
    """A longer problem statement loses its middle."""
    sandbox: SandboxConfig = SandboxConfig()
    max_parallel: int = Field(8, ge=1)
    """Boxes at the same time."""

    def build(self) -> OracleMode:
        """The mode of these settings."""
        return OracleMode(self)


class OracleMode:
    """See Mode."""

    needs_gold_files = True
    max_rounds = 1

    def __init__(self, config: OracleModeConfig) -> None:
        self._config = config

    def run(self, attempts: Sequence[Attempt], bench: Bench) -> Iterator[Result]:
        """See Mode. Raises UserError, before anything is asked, for a task whose files nobody has told."""
        unknown = [attempt.task.task_id for attempt in attempts if attempt.task.task_id not in bench.gold_files]
        if unknown:
            raise UserError(
                f"no gold files are given of {unknown[0]}: tell them, as `swe-srl predict --mode oracle` does"
            )
        config, count = self._config, token_counter(bench.policy)
        space = room(bench.policy, config.max_prompt_tokens, config.sampling.max_new_tokens)

        def begin(attempt: Attempt, box: Sandbox, log: Log) -> Work:
            sources = _given(attempt, box, bench.gold_files[attempt.task.task_id])
            prompt = edit_prompt(
                attempt.task, sources, room=space, count=count, max_statement_chars=config.max_statement_chars
            )
            if prompt is None:
                return Ending(PROMPT_TOO_LONG)
            log.num_tokens_cut += prompt.num_tokens_cut
            seed = attempt.seed(config.sampling.seed)
            (completion,) = yield Ask(prompt.messages, config.sampling.model_copy(update={"seed": seed}))
            tried = try_answer(completion, box, {source.path: source for source in sources}, log)
            return Ending(tried.exit_status, tried.patch)

        yield from run_rounds(attempts, begin, bench, mode="oracle", max_parallel=config.max_parallel)


def _given(attempt: Attempt, box: Sandbox, paths: Sequence[str]) -> list[Source]:
    """The files to show. Raises SandboxError where one is not there: then the box is not this task's."""
    sources = [source for path in paths if (source := read_source(box, path))]
    if not sources:
        raise SandboxError(
            f"the box of {attempt.task.task_id} holds none of the files that its gold patch changes ({', '.join(paths[:3])}): "
            f"is {attempt.task.image} the image of this task?"
        )
    return sources
