"""Items of work → machines of a Ray cluster, one actor on each; their outcomes come back to this process.

An actor holds the unpickled `work` and runs it in `workers` threads. No more is ever sent to a machine than it has free
threads, so that what a machine takes with it when it dies is what was running there: that is given to others. What has
come back is never run again. An item under which `MAX_LOSSES` machines died is a failure of the apparatus.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from swe_srl.errors import ApparatusError, ClusterUnavailable, SandboxError
from swe_srl.runtime.placement import Placement

Item = TypeVar("Item")
Value = TypeVar("Value")

MAX_LOSSES = 3
"""Machines that may die under one item, and actors that may die on one machine, before no more is tried."""
LOOK_S = 2.0
"""How often machines that came are looked for."""
PATIENCE_S = 60.0
"""For a machine to come when there is none."""


class _Job(Generic[Item]):
    """An item on its way."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.num_losses = 0


class Member:
    """The actor of one machine."""

    def __init__(self, machine: str, address: str, actor: Any) -> None:
        """`machine` is Ray's id of it, `actor` one that `start` has started."""
        self.machine = machine
        self.address = address
        self.actor = actor
        self.is_lost = False


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
        self._versions = dict(versions)
        self._work = work
        self._workers = workers
        self._waiting: Placement[_Job[Item]] = Placement(lambda job: near(job.item), workers)
        self._members: dict[str, Member] = {}
        self._starting: dict[Any, Member] = {}
        self._running: dict[Any, tuple[Member, _Job[Item]]] = {}
        self._deaths: Counter[str] = Counter()
        self._problem = "no machine with a processor for Ray is there"
        self._ray: Any = None
        self._parcel: Any = None
        self._looked_at = float("-inf")
        self._alone_since: float | None = None

    def has_room(self) -> bool:
        """Whether less than two rounds of items wait."""
        num_machines = max(1, len(self._members) + len(self._starting))
        return len(self._waiting) < 2 * self._workers * num_machines

    def give(self, item: Item) -> None:
        """Have `item` wait for a machine, or go to a free one."""
        if self._ray is None:
            self._ray = self._join()
            self._parcel = self._ray.put(self._ray.cloudpickle.dumps(self._work))
            self._look()
        self._waiting.add(_Job(item))
        self._hand_out()

    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting and not self._running

    def wait(self) -> list[tuple[Item, Future[Value]]]:
        """Items that are done. Raises ClusterUnavailable where nobody is left to do them."""
        done: list[tuple[Item, Future[Value]]] = []
        while not done:
            self._look()
            self._hand_out()
            for reference in self._next_references():
                if reference in self._starting:
                    self._started(reference)
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
                self._starting.pop(reference, None)
        for member in self._members.values():
            with suppress(self._ray.exceptions.RayError):
                member.actor.__ray_terminate__.remote()
        self._leave()

    def _next_references(self) -> list[Any]:
        references = [*self._starting, *self._running]
        if not references:
            time.sleep(LOOK_S / 4)
            return []
        ready, _ = self._ray.wait(references, num_returns=1, timeout=LOOK_S)
        return list(ready)

    def _look(self) -> None:
        """Start an actor on each machine that has none; give up where there has been none for too long."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        here = self._members.keys() | {member.machine for member in self._starting.values()}
        for node in self._ray.nodes():
            if can_work(node) and node["NodeID"] not in here and self._deaths[node["NodeID"]] < MAX_LOSSES:
                begun, member = start(
                    self._ray, node, self._versions, self._parcel, threads=self._workers, processors=self._workers
                )
                self._starting[begun] = member
        if self._members or self._starting:
            self._alone_since = None
            return
        self._alone_since = self._alone_since or now
        if now - self._alone_since > PATIENCE_S:
            raise ClusterUnavailable(
                f"nobody in the cluster can work: {self._problem}: call the same command again for the rest"
            )

    def _started(self, reference: Any) -> None:
        member = self._starting.pop(reference)
        try:
            check(self._ray, reference, member)
        except self._ray.exceptions.RayError as error:
            self._lose(member, error)
            return
        self._members[member.machine] = member
        self._waiting.join(member.machine)

    def _hand_out(self) -> None:
        for member in self._members.values():
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
        """The actor is gone, with its machine or alone. Each item that ran there tells of it; the first one counts."""
        if member.is_lost:
            return
        member.is_lost = True
        said = str(error).strip().splitlines()[-1].strip()
        self._problem = f"the last of its machines was lost: {member.address}: {said}"
        self._deaths[member.machine] += 1
        if self._members.get(member.machine) is member:
            del self._members[member.machine]
            self._waiting.leave(member.machine)
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(member.actor)  # where it only could not be reached, nothing must go on there


def can_work(node: Mapping[str, Any]) -> bool:
    """Whether a machine, as `ray.nodes()` tells of it, is there and has a processor for Ray."""
    return bool(node["Alive"]) and int(node["Resources"].get("CPU", 0)) > 0


def start(
    ray: Any, node: Mapping[str, Any], wanted: Mapping[str, str], parcel: Any, *, threads: int, processors: int
) -> tuple[Any, Member]:
    """An actor on a machine, with the work in `parcel` and so many threads for it; and what `check` waits for.

    `processors` of the machine are reserved for it, at most all.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor = (
        ray.remote(_actor_class())
        .options(
            num_cpus=min(processors, int(node["Resources"]["CPU"])),
            max_concurrency=threads,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        )
        .remote()
    )
    return actor.begin.remote(dict(wanted), parcel), Member(node["NodeID"], node["NodeManagerAddress"], actor)


def check(ray: Any, begun: Any, member: Member) -> None:
    """Wait until an actor can work. Raises ClusterUnavailable where it has other versions, RayError where it is lost."""
    try:
        differing = ray.get(begun)
    except ray.exceptions.RayTaskError as error:
        raise on(member, cause_of(error)) from error
    if differing:
        raise ClusterUnavailable(f"machine {member.address} has {differing}: install the same versions on all machines")


def _actor_class() -> type:
    """What runs on each machine. Defined in a function, so that it travels as a whole and can say what is missing there."""

    class Member:
        def begin(self, wanted: dict[str, str], parcel: bytes) -> str:
            """Unpack the work; where the versions here are not those that are `wanted`, what differs, in words."""
            import pickle

            try:
                from swe_srl.runtime.cluster import versions
            except ImportError as error:
                return f"no swe-srl that can do this ({error})"
            for package, version in versions().items():
                if version != wanted[package]:
                    return f"{package} {version}, and {wanted[package]} is wanted"
            self._work = pickle.loads(parcel)  # noqa: S301  from the process that started this actor
            return ""

        def do(self, item: Any) -> Any:
            return self._work(item)

    return Member


def cause_of(error: Any) -> Exception:
    """What was raised on the machine."""
    return error.cause if isinstance(error.cause, Exception) else error


def on(member: Member, error: Exception) -> Exception:
    """A failure of the apparatus, with the machine on which it happened."""
    return type(error)(f"on {member.address}: {error}") if isinstance(error, ApparatusError) else error
