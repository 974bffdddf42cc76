"""A policy + a journal → a teacher that is asked for each answer of a trajectory once, within the budget."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple, Self

from swe_srl.dialogue import Message
from swe_srl.policy.base import Completion, Policy, Sampling
from swe_srl.policy.chat import TEMPLATE_TOKENS, most_tokens
from swe_srl.policy.endpoint import EndpointPolicy
from swe_srl.policy.prices import Tokens
from swe_srl.teaching.budget import NOTHING
from swe_srl.teaching.journal import Call, Journal

_ONE_AT_A_TIME = threading.Lock()
"""A model in this process answers one thread after the other."""


class StoppedEarly(Exception):
    """The run is ending; this trajectory is left for the next start."""


class _Known(NamedTuple):
    """A prompt whose tokens the endpoint has counted."""

    prompt: list[Message]
    num_tokens: int


class JournaledPolicy:
    """A teacher that answers from the journal as far as it goes, then is asked, within the budget. For one trajectory."""

    def __init__(self, policy: Policy, journal: Journal, trajectory_id: str) -> None:
        self.name = policy.name
        self._policy = policy
        self._journal = journal
        self._trajectory_id = trajectory_id
        self._turn = 0
        self._known: _Known | None = None

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """The next answer of this trajectory: one prompt, one sample.

        Raises BudgetReached or TaskBudgetReached before a call that could exceed a cap, StoppedEarly when the run ends.
        """
        if len(prompts) != 1 or num_samples != 1:
            raise ValueError("a trajectory is taught one answer at a time")
        if seeds:
            sampling = sampling.model_copy(update={"seed": seeds[0]})
        prompt = list(prompts[0])
        turn, self._turn = self._turn, self._turn + 1
        call = self._journal.answer(self._trajectory_id, turn) or self._ask(prompt, sampling, turn)
        usage = call.usage
        if usage.prompt_tokens and not call.note:
            self._known = _Known(prompt, usage.prompt_tokens)
        return [[
            Completion(
                text=call.text,
                num_prompt_tokens=usage.prompt_tokens,
                num_tokens=usage.completion_tokens,
                num_cached_tokens=usage.cached_tokens,
                cost_usd=usage.cost_usd,
                finish_reason=call.finish_reason,
            )
        ]]  # fmt: skip

    def close(self) -> None:
        """Nothing of its own to free."""

    def _ask(self, prompt: list[Message], sampling: Sampling, turn: int) -> Call:
        with _Watch(self._journal, self._trajectory_id, turn, self._most(prompt), sampling.max_new_tokens) as watch:
            if isinstance(self._policy, EndpointPolicy):
                self._policy.ask(prompt, sampling, watch)
            else:
                with _ONE_AT_A_TIME:
                    watch.begin()
                    watch.answered(self._policy.complete([prompt], sampling)[0][0])
        assert watch.answer is not None
        return watch.answer

    def _most(self, prompt: list[Message]) -> int:
        """Tokens of a prompt at the most: what it has beyond an earlier one of this trajectory is counted by its bytes."""
        most = TEMPLATE_TOKENS + most_tokens(prompt)
        known = self._known
        if known is not None and prompt[: len(known.prompt)] == known.prompt:
            most = min(most, known.num_tokens + most_tokens(prompt[len(known.prompt) :]))
        return most


class _Watch:
    """Journals the attempts at one answer. What is still open when the `with` ends is lost."""

    def __init__(self, journal: Journal, trajectory_id: str, turn: int, prompt_tokens: int, new_tokens: int) -> None:
        self.answer: Call | None = None
        self._journal = journal
        self._trajectory_id = trajectory_id
        self._turn = turn
        self._worst = journal.account.config.price.worst(prompt_tokens, new_tokens)
        self._open: Call | None = None

    def begin(self) -> None:
        """Set the worst case aside, on disk. Raises what `Journal.begin` raises, or StoppedEarly."""
        self._go_on()
        self._open = self._journal.begin(self._trajectory_id, self._turn, self._worst)

    def answered(self, completion: Completion) -> None:
        """Keep an answer. Where the endpoint does not say what it used, it is charged at its worst."""
        tokens = Tokens(
            completion.num_prompt_tokens,
            completion.num_tokens,
            completion.num_cached_tokens,
            completion.num_cache_write_tokens,
        )
        usage = self._worst if completion.is_estimated else self._journal.account.config.price.cost(tokens)
        note = "the endpoint did not say what it used" if completion.is_estimated else ""
        self.answer = self._end(
            status="answered", text=completion.text, finish_reason=completion.finish_reason, usage=usage, note=note
        )

    def lost(self, reason: str) -> None:
        """Charge an attempt whose answer did not come."""
        self._end(status="lost", usage=self._worst, note=reason)

    def refused(self, reason: str) -> None:
        """An attempt that costs nothing."""
        self._end(status="refused", usage=NOTHING, note=reason)

    def sleep(self, seconds: float) -> None:
        """Wait, unless the run ends. Raises StoppedEarly then."""
        self._journal.stopped.wait(seconds)
        self._go_on()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._open is not None:
            self.lost("ended by a failure of our own")

    def _go_on(self) -> None:
        if self._journal.stopped.is_set():
            raise StoppedEarly

    def _end(self, **how: object) -> Call:
        begun, self._open = self._open, None
        assert begun is not None
        ended = Call.model_validate(
            {"trajectory_id": begun.trajectory_id, "turn": begun.turn, "attempt": begun.attempt} | how
        )
        self._journal.end(begun, ended)
        return ended
