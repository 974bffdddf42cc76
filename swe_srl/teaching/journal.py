"""Calls to a teacher → `calls.jsonl`: each answer is on disk before the next call is made, and is never paid for twice."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from swe_srl.dialogue import Message
from swe_srl.policy.base import Completion, Policy, Sampling
from swe_srl.policy.endpoint import EndpointPolicy, LostCall, estimate_tokens
from swe_srl.schema import Record, Usage
from swe_srl.store import Appender, Run
from swe_srl.teaching.budget import Account

CALLS = "calls.jsonl"


class Call(Record):
    """One call to the teacher, as it was paid for."""

    trajectory_id: str
    turn: int
    """Which answer of the trajectory, from 0."""
    status: Literal["answered", "lost"]
    """`lost`: no answer came, though the endpoint may have charged for one; the tokens are the worst case."""
    text: str = ""
    finish_reason: str = ""
    usage: Usage
    note: str = ""


class Journal:
    """The calls of one run, those of its earlier starts included."""

    def __init__(self, run: Run, account: Account) -> None:
        """Read what earlier starts paid for, and charge it to `account`."""
        self.account = account
        self.stopped = threading.Event()
        """Set to make no further calls."""
        self._answers: dict[str, dict[int, Call]] = defaultdict(dict)
        for call in run.read(CALLS, Call):
            account.charge(call.usage)
            if call.status == "answered":
                self._answers[call.trajectory_id][call.turn] = call
        self._file: Appender[Call] = run.append(CALLS, Call)

    def answer(self, trajectory_id: str, turn: int) -> Call | None:
        """What the teacher answered there; None where it has not been asked."""
        return self._answers[trajectory_id].get(turn)

    def write(self, call: Call) -> None:
        """Charge a call and put it on disk."""
        self.account.charge(call.usage)
        self._file.write(call)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class StoppedEarly(Exception):
    """The run is ending; this trajectory is left for the next start."""


class JournaledPolicy:
    """A teacher that answers from the journal as far as it goes, then is asked, within the budget."""

    def __init__(self, policy: Policy, journal: Journal, trajectory_id: str) -> None:
        self.name = policy.name
        self._policy = policy
        self._journal = journal
        self._trajectory_id = trajectory_id
        self._turn = 0

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """The next answer of this trajectory: one prompt, one sample. Raises BudgetReached before a call that could exceed the cap."""
        if len(prompts) != 1 or num_samples != 1:
            raise ValueError("a trajectory is taught one answer at a time")
        if seeds:
            sampling = sampling.model_copy(update={"seed": seeds[0]})
        turn, self._turn = self._turn, self._turn + 1
        known = self._journal.answer(self._trajectory_id, turn)
        if known is None:
            known = self._ask(prompts[0], sampling, turn)
        usage = known.usage
        return [[
            Completion(
                text=known.text,
                num_prompt_tokens=usage.prompt_tokens,
                num_tokens=usage.completion_tokens,
                finish_reason=known.finish_reason,
            )
        ]]  # fmt: skip

    def close(self) -> None:
        """Nothing of its own to free."""

    def _ask(self, prompt: Sequence[Message], sampling: Sampling, turn: int) -> Call:
        if self._journal.stopped.is_set():
            raise StoppedEarly
        account = self._journal.account
        reservation = account.reserve(estimate_tokens(prompt), sampling.max_new_tokens)
        try:
            answer = self._complete(prompt, sampling, turn)
            call = Call(
                trajectory_id=self._trajectory_id,
                turn=turn,
                status="answered",
                text=answer.text,
                finish_reason=answer.finish_reason,
                usage=account.config.price(answer.num_prompt_tokens, answer.num_tokens),
            )
            self._journal.write(call)
        finally:
            account.release(reservation)
        return call

    def _complete(self, prompt: Sequence[Message], sampling: Sampling, turn: int) -> Completion:
        if not isinstance(self._policy, EndpointPolicy):
            return self._policy.complete([prompt], sampling)[0][0]

        def lost(call: LostCall) -> None:
            usage = self._journal.account.config.price(call.num_prompt_tokens, call.num_completion_tokens)
            self._journal.write(
                Call(trajectory_id=self._trajectory_id, turn=turn, status="lost", usage=usage, note=call.reason)
            )

        return self._policy.ask(prompt, sampling, lost)
