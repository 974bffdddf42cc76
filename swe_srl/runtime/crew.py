"""Items of work → machines of a Ray cluster, one actor on each; their outcomes come back to this process.

An actor holds the unpickled `work` and runs it in `workers` threads. No more is ever sent to a machine than it has free
threads, so that what a machine takes with it when it dies is what was running there: that is given to others. What has
come back is never run again. An item under which `MAX_LOSSES` machines died is a failure of the apparatus.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from swe_srl.errors import SandboxError
from swe_srl.runtime.placement import Placement
from swe_srl.runtime.roster import LOOK_S, MAX_LOSSES, Member, Roster, cause_of, on

Item = TypeVar("Item")
Value = TypeVar("Value")


class _Job(Generic[Item]):
    """An item on its way."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.num_losses = 0


class RayCrew(Generic[Item, Value]):
    """The crew of one fan_out; see `swe_srl.fanout.Crew`."""

    def __init__(
        self,
        join: Callable[[], Any],
        leave: Callable[[], None],
        work: Callable[[Item], Value],
        *,
        workers: int,
        near: Callable[[Item], object],
        versions: Mapping[str, str],
    ) -> None:
        """`join` gives the ray module, connected, until `leave`; `versions` are those that every machine must have."""
        self._join = join
        self._leave = leave
        self._versions = versions
        self._work = work
        self._workers = workers
        self._waiting: Placement[_Job[Item]] = Placement(lambda job: near(job.item), workers)
        self._running: dict[Any, tuple[Member, _Job[Item]]] = {}
        self._ray: Any = None
        """None until there is something to do."""
        self._roster: Roster

    def has_room(self) -> bool:
        """Whether less than two rounds of items wait."""
        num_machines = len(self._roster.members) + len(self._roster.starting) if self._ray else 0
        return len(self._waiting) < 2 * self._workers * max(1, num_machines)

    def give(self, item: Item) -> None:
        """Have `item` wait for a machine, or go to a free one."""
        if self._ray is None:
            self._ray = self._join()
            self._roster = Roster(
                self._ray, self._work, self._versions, threads=self._workers, processors=self._workers
            )
            self._roster.look()
        self._waiting.add(_Job(item))
        self._hand_out()

    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting and not self._running

    def wait(self) -> list[tuple[Item, Future[Value]]]:
        """Items that are done. Raises ClusterUnavailable where nobody is left to do them."""
        done: list[tuple[Item, Future[Value]]] = []
        while not done:
            self._roster.look()
            self._hand_out()
            for reference in self._next_references():
                if reference in self._roster.starting:
                    self._began(reference)
                elif reference in self._running:
                    done += self._finished(reference)
        self._hand_out()  # nobody stands idle while what is done is written down
        return done

    def drop(self) -> None:
        """Forget the items that wait."""
        self._waiting.clear()

    def close(self) -> None:
        """Wait for what runs, then leave the cluster; the actors end with it."""
        if self._ray is None:
            return
        self._waiting.clear()
        while self._running:
            for reference in self._next_references():
                self._running.pop(reference, None)
                self._roster.starting.pop(reference, None)
        for member in self._roster.members.values():
            with suppress(self._ray.exceptions.RayError):
                member.actor.__ray_terminate__.remote()
        self._leave()

    def _next_references(self) -> list[Any]:
        references = [*self._roster.starting, *self._running]
        if not references:
            time.sleep(LOOK_S / 4)
            return []
        ready, _ = self._ray.wait(references, num_returns=1, timeout=LOOK_S)
        return list(ready)

    def _began(self, reference: Any) -> None:
        member = self._roster.begin(reference)
        if member:
            self._waiting.join(member.machine)

    def _hand_out(self) -> None:
        for member in self._roster.members.values():
            num_free = self._workers - sum(1 for other, _ in self._running.values() if other is member)
            for _ in range(num_free):
                job = self._waiting.take(member.machine)
                if job is None:
                    break
                self._running[member.actor.do.remote(job.item)] = (member, job)

    def _finished(self, reference: Any) -> list[tuple[Item, Future[Value]]]:
        member, job = self._running.pop(reference)
        future: Future[Value] = Future()
        try:
            future.set_result(self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:
            future.set_exception(on(member, cause_of(error)))
        except self._ray.exceptions.RayError as error:
            self._lose(member, error)
            job.num_losses += 1
            if job.num_losses < MAX_LOSSES:
                self._waiting.add(job, in_front=True)
                return []
            future.set_exception(
                SandboxError(
                    f"{job.num_losses} machines were lost while they worked on it, the last was {member.address}"
                )
            )
        return [(job.item, future)]

    def _lose(self, member: Member, error: Exception) -> None:
        """Each item that ran there tells of it; the first one counts."""
        if self._roster.lose(member, error):
            self._waiting.leave(member.machine)
