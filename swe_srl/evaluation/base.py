"""What every evaluation mode promises: attempts at tasks in, one result for each out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from pydantic import Field

from swe_srl.agent import OpenBox
from swe_srl.policy.base import Policy
from swe_srl.schema import Prediction, Record, Task, Trajectory

SEED_STRIDE = 1000
"""Between the seeds of two attempts at a task; an answer adds one."""


class Candidate(Record):
    """One of the patches that an attempt chose from."""

    task_id: str
    model: str
    attempt: int = Field(0, ge=0)
    sample: int = Field(ge=0)
    exit_status: str
    """`edited`, or why there is no patch."""
    patch: str
    chosen: bool = False


class Attempt(NamedTuple):
    """One try at one task."""

    task: Task
    number: int = 0

    @property
    def trajectory_id(self) -> str:
        """`<task>.evaluation`, with the number behind it from the second one on."""
        return f"{self.task.task_id}.evaluation" + (f"-{self.number}" if self.number else "")

    def seed(self, first: int) -> int:
        """The seed of its first answer, where that of the first attempt is `first`."""
        return first + SEED_STRIDE * self.number


class Bench(NamedTuple):
    """What a mode works with."""

    policy: Policy
    model: str
    """The name in what is written."""
    open_box: OpenBox
    gold_files: Mapping[str, tuple[str, ...]] = {}
    """Task → files that its gold patch changes; for the mode that shows them."""
    on_answer: Callable[[], None] | None = None
    """Called for each round of a task's answers."""


class Result(NamedTuple):
    """What became of one attempt."""

    prediction: Prediction
    trajectory: Trajectory
    """All that was said and what became of it."""
    num_rounds: int
    """Times that `on_answer` was called for it."""
    candidates: tuple[Candidate, ...] = ()
    """The patches it chose from, where there was a choice."""


class Mode(Protocol):
    """A way to get from a task to a patch."""

    needs_gold_files: bool
    max_rounds: int
    """Times that an attempt asks the model, at the most."""

    def run(self, attempts: Sequence[Attempt], bench: Bench) -> Iterator[Result]:
        """Each attempt's result, in the order in which they are ready.

        What does not parse or apply is a result; an attempt whose box breaks has an `infra_failure` and disturbs no other.
        Raises EndpointError when the policy cannot be reached, EngineUnavailable when no box can be opened. No box stays
        open, however this ends.
        """
