"""The machines of a Ray cluster that work for this process: one actor on each, who comes, who begins, who is lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any

from swe_srl import __version__
from swe_srl.errors import ApparatusError, ClusterUnavailable

MAX_LOSSES = 3
"""Machines that may die under one item, and actors that may die on one machine, before no more is tried."""
LOOK_S = 2.0
"""How often machines that came are looked for."""
PATIENCE_S = 60.0
"""For a machine to come when there is none."""
START_S = 300.0
"""For a machine that is there to begin its work, when no other does."""


def versions() -> dict[str, str]:
    """What must be the same everywhere: a verdict says which rules it was judged by."""
    return {"swe-srl": __version__, "swebench": metadata.version("swebench")}


class Member:
    """The actor of one machine."""

    def __init__(self, machine: str, address: str, actor: Any) -> None:
        """`machine` is Ray's id of it."""
        self.machine = machine
        self.address = address
        self.actor = actor
        self.is_lost = False


class Roster:
    """Who works, and who is about to. For one thread at a time."""

    def __init__(self, ray: Any, work: Any, versions: Mapping[str, str], *, threads: int, processors: int) -> None:
        """`work` is what each actor calls with what it is asked, in so many threads; `versions` are those that every machine must have.

        So many `processors` of each machine are reserved in Ray's books, at most all.
        """
        self._ray = ray
        self._parcel = ray.put(ray.cloudpickle.dumps(work))
        self._versions = dict(versions)
        self._threads = threads
        self._processors = processors
        self.members: dict[str, Member] = {}
        """By machine."""
        self.starting: dict[Any, Member] = {}
        """By the reference that is ready when the actor can work, or cannot: then `begin`."""
        self._deaths: Counter[str] = Counter()
        self._problem = "no machine with a processor for Ray is there"
        self._looked_at = float("-inf")
        self._alone_since: float | None = None

    def look(self) -> None:
        """Start an actor on each machine that has none, waiting for none of them; does nothing if it did so just now.

        Raises ClusterUnavailable where there has been none that works for too long.
        """
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        here = self.members.keys() | {member.machine for member in self.starting.values()}
        for node in self._ray.nodes():
            if _can_work(node) and node["NodeID"] not in here and self._deaths[node["NodeID"]] < MAX_LOSSES:
                self._start(node)
        if self.members:
            self._alone_since = None
            return
        self._alone_since = self._alone_since or now
        if now - self._alone_since > (START_S if self.starting else PATIENCE_S):
            self._alone_since = None
            raise ClusterUnavailable(
                f"nobody in the cluster can work: {self._problem}: call the same command again for the rest"
            )

    def begin(self, reference: Any) -> Member | None:
        """Take in one of `starting` whose reference is ready; None where it was lost. Raises ClusterUnavailable where it has other versions."""
        member = self.starting.pop(reference)
        try:
            differing = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise on(member, cause_of(error)) from error
        except self._ray.exceptions.RayError as error:
            self.lose(member, error)
            return None
        if differing:
            raise ClusterUnavailable(
                f"machine {member.address} has {differing}: install the same versions on all machines"
            )
        self.members[member.machine] = member
        return member

    def lose(self, member: Member, error: Exception) -> bool:
        """The actor is gone, with its machine or alone. Whoever was waiting for it tells of it; true for the first one."""
        if member.is_lost:
            return False
        member.is_lost = True
        said = str(error).strip().splitlines()[-1].strip()
        self._problem = f"the last of its machines was lost: {member.address}: {said}"
        self._deaths[member.machine] += 1
        if self.members.get(member.machine) is member:
            del self.members[member.machine]
        self.kill([member])  # where it only could not be reached, nothing must go on there
        return True

    def kill(self, members: Iterable[Member]) -> None:
        """End actors, whatever they are at."""
        for member in members:
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(member.actor)

    def _start(self, node: Mapping[str, Any]) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = (
            self._ray.remote(_actor_class())
            .options(
                num_cpus=min(self._processors, int(node["Resources"]["CPU"])),
                max_concurrency=self._threads,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            .remote()
        )
        member = Member(node["NodeID"], node["NodeManagerAddress"], actor)
        self.starting[actor.begin.remote(self._versions, self._parcel)] = member
        self._problem = f"{member.address} has not begun to work"


def cause_of(error: Any) -> Exception:
    """What was raised on the machine."""
    return error.cause if isinstance(error.cause, Exception) else error


def on(member: Member, error: Exception) -> Exception:
    """A failure of the apparatus, with the machine on which it happened."""
    return type(error)(f"on {member.address}: {error}") if isinstance(error, ApparatusError) else error


def _can_work(node: Mapping[str, Any]) -> bool:
    """Whether a machine, as `ray.nodes()` tells of it, is there and has a processor for Ray."""
    return bool(node["Alive"]) and int(node["Resources"].get("CPU", 0)) > 0


def _actor_class() -> type:
    """What runs on each machine. Defined in a function, so that it travels as a whole and can say what is missing there."""

    class Member:
        def begin(self, wanted: dict[str, str], parcel: bytes) -> str:
            """Unpack the work; where the versions here are not those that are `wanted`, what differs, in words."""
            import pickle

            try:
                from swe_srl.runtime.roster import versions
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
