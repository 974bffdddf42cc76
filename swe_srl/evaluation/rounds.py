"""Attempts that ask, read the answers and ask again → Results, many side by side, so that sampler and boxes are both busy."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import NamedTuple

from swe_srl.dialogue import Message
from swe_srl.errors import ApparatusError, EngineUnavailable
from swe_srl.evaluation.base import Attempt, Bench, Candidate, Result
from swe_srl.policy.base import Completion, Sampling
from swe_srl.runtime.base import Sandbox
from swe_srl.schema import Prediction, Trajectory, Turn, Usage

SHARE_READY = 0.5
"""Of the live attempts, how many have to wait for an answer before the policy is asked; the boxes of the others work on."""


class Ask(NamedTuple):
    """What an attempt wants to hear next."""

    messages: list[Message]
    sampling: Sampling
    num_samples: int = 1


class Ending(NamedTuple):
    """How an attempt ended."""

    exit_status: str
    patch: str = ""
    candidates: tuple[Candidate, ...] = ()


class Log:
    """What an attempt has said and used so far."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.usage = Usage()
        self.num_malformed = 0
        self.num_edits = 0
        self.num_edits_applied = 0
        self.num_tokens_cut = 0
        self.answer_tokens: list[int] = []
        self.num_rounds = 0
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the attempt began."""
        return time.monotonic() - self._begun

    def heard(self, completion: Completion) -> None:
        """Count an answer, and the prompt that it answers."""
        self.answer_tokens.append(completion.num_tokens)
        self.usage += Usage(
            prompt_tokens=completion.num_prompt_tokens,
            completion_tokens=completion.num_tokens,
            cached_tokens=completion.num_cached_tokens,
            cost_usd=completion.cost_usd,
        )

    def judged(self, completion: Completion, thought: str, what: str) -> None:
        """Keep an answer with what became of it."""
        self.turns.append(Turn(thought=thought, command=None, completion=completion.text, observation=what))


Work = Generator[Ask, list[Completion], Ending]
"""An attempt under way."""

Begin = Callable[[Attempt, Sandbox, Log], Work]
"""Starts the work of an attempt in its box."""


def run_rounds(
    attempts: Sequence[Attempt], begin: Begin, bench: Bench, *, mode: str, max_parallel: int
) -> Generator[Result]:
    """Drive every attempt to its end, at most `max_parallel` at once; see Mode.run for what it promises.

    An attempt's own steps (opening its box, reading files, trying edits) run in threads. The policy is asked from here,
    in one call for all that wait with the same sampling, each with its own seed.
    """
    source = iter(attempts)
    with ThreadPoolExecutor(max_workers=max(1, max_parallel)) as pool:
        desk = _Desk(pool, begin, bench, mode)
        try:
            while True:
                desk.open(list(islice(source, max_parallel - desk.num_live)))
                if not desk.num_live:
                    return
                if desk.num_live * SHARE_READY <= desk.num_waiting or not desk.num_busy:
                    desk.ask()
                else:
                    yield from desk.settle()
        finally:
            desk.close()


class _Live:
    """One attempt under way, with its box."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.log = Log()
        self.box: Sandbox | None = None
        self.work: Work | None = None

    def close(self) -> None:
        """Let go of the box; closing twice is harmless."""
        if self.box is not None:
            self.box.close()


class _Desk:
    """Attempts under way: some wait for an answer, the others work in their boxes."""

    def __init__(self, pool: ThreadPoolExecutor, begin: Begin, bench: Bench, mode: str) -> None:
        self._pool = pool
        self._begin = begin
        self._bench = bench
        self._mode = mode
        self._live: set[_Live] = set()
        self._busy: dict[Future[Ask | Ending], _Live] = {}
        self._waiting: list[tuple[_Live, Ask]] = []

    @property
    def num_busy(self) -> int:
        """At work in their boxes."""
        return len(self._busy)

    @property
    def num_waiting(self) -> int:
        """Waiting for an answer."""
        return len(self._waiting)

    @property
    def num_live(self) -> int:
        """Both."""
        return len(self._live)

    def open(self, attempts: Sequence[Attempt]) -> None:
        """Begin these attempts."""
        for attempt in attempts:
            live = _Live(attempt)
            self._live.add(live)
            self._busy[self._pool.submit(self._start, live)] = live

    def ask(self) -> None:
        """Ask for all that wait, and let them go on."""
        waiting, self._waiting = self._waiting, []
        groups: dict[tuple[str, int], list[tuple[_Live, Ask]]] = {}
        for live, ask in waiting:
            alike = ask.sampling.model_copy(update={"seed": 0}).model_dump_json()
            groups.setdefault((alike, ask.num_samples), []).append((live, ask))
        for (_, num_samples), group in groups.items():
            asks = [ask for _, ask in group]
            answers = self._bench.policy.complete(
                [ask.messages for ask in asks],
                asks[0].sampling,
                num_samples=num_samples,
                seeds=[ask.sampling.seed for ask in asks],
            )
            for (live, _), completions in zip(group, answers, strict=True):
                live.log.num_rounds += 1
                for completion in completions:
                    live.log.heard(completion)
                self._busy[self._pool.submit(self._go_on, live, completions)] = live
                if self._bench.on_answer:
                    self._bench.on_answer()

    def settle(self) -> Iterator[Result]:
        """Wait until an attempt has worked off its answers; the results of those that have ended with it."""
        for future in wait(self._busy, return_when=FIRST_COMPLETED).done:
            live = self._busy.pop(future)
            said, failure = _outcome(future)
            if isinstance(said, Ask):
                self._waiting.append((live, said))
                continue
            self._live.remove(live)
            live.close()
            yield self._result(live, said, failure)

    def close(self) -> None:
        """Wait for what runs, and close every box."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for live in self._live:
            live.close()

    def _start(self, live: _Live) -> Ask | Ending:
        live.box = self._bench.open_box(live.attempt.task)
        live.work = self._begin(live.attempt, live.box, live.log)
        return self._step(live, next)

    def _go_on(self, live: _Live, completions: list[Completion]) -> Ask | Ending:
        return self._step(live, lambda work: work.send(completions))

    def _step(self, live: _Live, step: Callable[[Work], Ask]) -> Ask | Ending:
        assert live.work is not None
        try:
            return step(live.work)
        except StopIteration as end:
            live.close()  # here, so that boxes are removed side by side
            ending: Ending = end.value
            return ending

    def _result(self, live: _Live, ending: Ending, infra_failure: str) -> Result:
        log, attempt, model = live.log, live.attempt, self._bench.model
        prediction = Prediction(
            task_id=attempt.task.task_id,
            model=model,
            patch=ending.patch,
            exit_status=ending.exit_status,
            attempt=attempt.number,
            mode=self._mode,
            num_turns=len(log.answer_tokens),
            num_malformed=log.num_malformed,
            num_edits=log.num_edits,
            num_edits_applied=log.num_edits_applied,
            num_tokens_cut=log.num_tokens_cut,
            answer_tokens=tuple(log.answer_tokens),
            usage=log.usage,
            duration_s=log.seconds,
            infra_failure=infra_failure,
        )
        trajectory = Trajectory(
            trajectory_id=attempt.trajectory_id,
            task_id=prediction.task_id,
            model=model,
            source=f"swe-srl {self._mode}",
            turns=tuple(log.turns),
            exit_status=ending.exit_status or "infra_failure",
            patch=ending.patch,
            usage=log.usage,
        )
        return Result(prediction, trajectory, log.num_rounds, ending.candidates)


def _outcome(future: Future[Ask | Ending]) -> tuple[Ask | Ending, str]:
    """What an attempt said, and why the apparatus failed, if it did."""
    try:
        return future.result(), ""
    except EngineUnavailable:
        raise
    except ApparatusError as failure:
        return Ending(""), str(failure)
