"""One function over many items, many at a time: by threads here, or by whoever else an executor finds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, NamedTuple, Protocol, TypeVar

from swe_srl.errors import ApparatusError, EngineUnavailable

Item = TypeVar("Item")
Value = TypeVar("Value")


class Outcome(NamedTuple, Generic[Item, Value]):
    """What became of one item: a value, or the failure of the apparatus that prevented one."""

    item: Item
    value: Value | None
    failure: ApparatusError | None


class Crew(Protocol[Item, Value]):
    """Those who work on the items of one `fan_out`. Used by one thread."""

    def has_room(self) -> bool:
        """Whether one more item can be given."""

    def give(self, item: Item) -> None:
        """Have `item` worked on."""

    def is_idle(self) -> bool:
        """Whether nothing is left of what was given."""

    def wait(self) -> Sequence[tuple[Item, Future[Value]]]:
        """Items that are done, at least one, each once. Called only when the crew is not idle."""

    def drop(self) -> None:
        """Forget the items that nobody has begun."""


class Executor(Protocol):
    """Where work is done."""

    is_here: bool
    """Whether it is done in this process, so that it can share what is prepared here."""

    def crew(
        self, work: Callable[[Item], Value], *, workers: int, near: Callable[[Item], object] | None
    ) -> AbstractContextManager[Crew[Item, Value]]:
        """A crew for `work`. At the end of the context, what runs is waited for.

        `near` gives what an item wants to be near to, as the image of its box: items for which it gives the same are
        better worked on in one place.
        """


class Threads:
    """An executor: `workers` threads of this process."""

    is_here = True

    @contextmanager
    def crew(
        self,
        work: Callable[[Item], Value],
        *,
        workers: int,
        near: Callable[[Item], object] | None = None,  # noqa: ARG002  here everything is equally near
    ) -> Iterator[Crew[Item, Value]]:
        """Threads that live as long as the context."""
        with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
            yield _ThreadCrew(work, pool, max(1, workers))


class _ThreadCrew(Generic[Item, Value]):
    def __init__(self, work: Callable[[Item], Value], pool: ThreadPoolExecutor, workers: int) -> None:
        self._work = work
        self._pool = pool
        self._workers = workers
        self._running: dict[Future[Value], Item] = {}

    def has_room(self) -> bool:
        return len(self._running) < self._workers

    def give(self, item: Item) -> None:
        self._running[self._pool.submit(self._work, item)] = item

    def is_idle(self) -> bool:
        return not self._running

    def wait(self) -> list[tuple[Item, Future[Value]]]:
        return [(self._running.pop(future), future) for future in wait(self._running, return_when=FIRST_COMPLETED).done]

    def drop(self) -> None:
        for future in self._running:
            future.cancel()


THREADS = Threads()


def grouped(items: Iterable[Item], key: Callable[[Item], object]) -> list[Item]:
    """`items` so that those of one key follow each other, the keys in the order in which they come first."""
    groups: dict[object, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return [item for group in groups.values() for item in group]


def fan_out(
    work: Callable[[Item], Value],
    items: Iterable[Item],
    *,
    workers: int,
    on_end: Callable[[], object] | None = None,
    executor: Executor = THREADS,
    near: Callable[[Item], object] | None = None,
) -> Generator[Outcome[Item, Value]]:
    """Run `work` over `items`, at most `workers` at once in one place; yield each outcome as it is ready.

    A failure of the apparatus for one item is yielded beside the others. A missing engine and any other error ends the
    whole run: items not yet begun are dropped, and what runs is waited for, so that no box is left behind. `on_end` is
    called before that wait, however it ends, and may tell what runs to be brief. `executor` says where the work is done,
    and `near` what an item wants to be near to there.
    """
    with executor.crew(work, workers=workers, near=near) as crew:
        source = iter(items)
        exhausted = False
        try:
            while True:
                while not exhausted and crew.has_room():
                    try:
                        item = next(source)
                    except StopIteration:
                        exhausted = True
                        break
                    crew.give(item)
                if crew.is_idle():
                    return
                for item, future in crew.wait():
                    yield _outcome(item, future)
        finally:
            crew.drop()
            if on_end:
                on_end()


def in_order(
    outcomes: Iterable[Outcome[tuple[int, Item], Value]],
) -> Iterator[Outcome[tuple[int, Item], Value]]:
    """The outcomes of numbered items (`enumerate`), in their order: what is ready early waits."""
    ready: dict[int, Outcome[tuple[int, Item], Value]] = {}
    position = 0
    for outcome in outcomes:
        ready[outcome.item[0]] = outcome
        while position in ready:
            yield ready.pop(position)
            position += 1


def _outcome(item: Item, future: Future[Value]) -> Outcome[Item, Value]:
    try:
        return Outcome(item, future.result(), None)
    except EngineUnavailable:
        raise
    except ApparatusError as failure:
        return Outcome(item, None, failure)
