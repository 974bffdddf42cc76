"""Boxes on the machines of a Ray cluster, for who asks them something turn by turn: episodes, lessons, rewards by effect.

One actor on each machine keeps its boxes, and every call of a box goes there. So the policy, the run directory and whatever
decides stay in this process, while commands run elsewhere; `RayCluster` is for work that can travel as a whole. A box goes to
a machine that has had its image, where there is room on one, else to the one with the fewest boxes; who finds no room waits.
A machine that dies takes its boxes along: the next call of each is a SandboxError, as for any box that is gone.
"""

from __future__ import annotations

import atexit
import itertools
import threading
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any

from swe_srl.errors import ApparatusError, SandboxError
from swe_srl.runtime.base import Closing, CommandResult, SandboxConfig
from swe_srl.runtime.cluster import RayCluster
from swe_srl.runtime.open import BoxRequest, open_box
from swe_srl.runtime.roster import LOOK_S, MAX_LOSSES, Member, Roster, cause_of, on, versions
from swe_srl.runtime.shell import Answer

_THREADS = 4
"""Of an actor, beside one for each box: for boxes that are opened and closed meanwhile."""

_clusters: dict[tuple[str, int], Machines] = {}
_lock = threading.Lock()


def machines_of(config: SandboxConfig) -> Machines:
    """The machines of the cluster that `config` names; connected to once in a process. Raises UserError, ClusterUnavailable."""
    key = (config.cluster, config.cluster_boxes)
    with _lock:
        if key not in _clusters:
            _clusters[key] = Machines(RayCluster(config.cluster), config.cluster_boxes)
            if len(_clusters) == 1:
                # Only now, so that it comes before Ray's own end, which `join` has registered.
                atexit.register(leave_all)
        return _clusters[key]


def leave_all() -> None:
    """Close all boxes that are open on other machines."""
    with _lock:
        while _clusters:
            _clusters.popitem()[1].close()


class Keeper:
    """The boxes of one machine, where they are. Called with the name of one of its methods and the arguments."""

    def __init__(self) -> None:
        self._things: dict[int, Any] = {}
        self._numbers = itertools.count(1)

    def __call__(self, order: tuple[Any, ...]) -> Any:
        """Carry out one order; raises what it raises."""
        name, *arguments = order
        return getattr(self, name)(*arguments)

    def open(self, config: SandboxConfig, wanted: BoxRequest) -> int:
        """Open a box; its number."""
        return self._keep(open_box(config, wanted))

    def ask(self, number: int, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call a method of a box, or of what one has given."""
        answer = getattr(self._things[number], method)(*arguments, **named)
        return self._keep(answer) if method == "record" else answer

    def close(self, number: int) -> None:
        """Close a box."""
        self._things.pop(number).close()

    def close_all(self) -> None:
        """Close what is open, for nobody is left who could ask for it."""
        while self._things:
            with suppress(ApparatusError, KeyError):
                self._things.popitem()[1].close()

    def _keep(self, thing: Any) -> int:
        number = next(self._numbers)
        self._things[number] = thing
        return number


class Machines:
    """The machines of a cluster, each with its keeper. For any number of threads."""

    def __init__(self, cluster: RayCluster, boxes_each: int) -> None:
        self._cluster = cluster
        self._ray = cluster.join()
        self._boxes_each = boxes_each
        # No processor is reserved: that would keep out, as long as this process lives, who comes after it.
        self._roster = Roster(self._ray, Keeper(), versions(), threads=boxes_each + _THREADS, processors=0)
        self._room = threading.Condition()
        self._open: Counter[str] = Counter()
        self._images: defaultdict[str, set[str]] = defaultdict(set)
        self._is_closed = False

    def open(self, config: SandboxConfig, wanted: BoxRequest) -> RemoteBox:
        """A box on one of the machines; waits until one has room. Where a machine dies meanwhile, another is tried.

        Raises what `open_box` raises, with the machine's address, and ClusterUnavailable where no machine is left.
        """
        there = config.model_copy(update={"cluster": ""})
        for _ in range(MAX_LOSSES):
            member = self._take(wanted.image)
            try:
                number = self.call(member, "open", there, wanted)
            except _Lost:
                continue
            except BaseException:
                self.give_back(member)
                raise
            return RemoteBox(self, member, number, wanted.workdir)
        raise SandboxError(f"{MAX_LOSSES} machines were lost while they opened a box of {wanted.image}")

    def call(self, member: Member, *order: Any) -> Any:
        """Have a keeper carry out an order. Raises what that raises, and SandboxError where the machine is gone."""
        if not member.is_lost:
            try:
                return self._ray.get(member.actor.do.remote(order))
            except self._ray.exceptions.RayTaskError as error:
                raise on(member, cause_of(error)) from error
            except self._ray.exceptions.RayError as error:
                self._lose(member, error)
        raise _Lost(f"machine {member.address} was lost, and the box with it")

    def give_back(self, member: Member) -> None:
        """A box of this machine is closed."""
        with self._room:
            if not member.is_lost:
                self._open[member.machine] -= 1
                self._room.notify_all()

    def close(self) -> None:
        """Close all boxes and leave the cluster; twice is harmless."""
        if self._is_closed:
            return
        self._is_closed = True
        everyone = [*self._roster.members.values(), *self._roster.starting.values()]
        for member in self._roster.members.values():
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(member.actor.do.remote(("close_all",)), timeout=30)
        self._roster.kill(everyone)
        self._roster.members.clear()
        self._cluster.leave()

    def _take(self, image: str) -> Member:
        with self._room:
            while True:
                self._roster.look()
                self._take_in()
                free = [one for one in self._roster.members.values() if self._open[one.machine] < self._boxes_each]
                if free:
                    chosen = min(
                        free, key=lambda one: (image not in self._images[one.machine], self._open[one.machine])
                    )
                    self._open[chosen.machine] += 1
                    self._images[chosen.machine].add(image)
                    return chosen
                self._room.wait(LOOK_S / 20 if self._roster.starting else LOOK_S)

    def _take_in(self) -> None:
        """Machines that have begun since; who is late keeps nobody from those that are there."""
        starting = list(self._roster.starting)
        if starting:
            ready, _ = self._ray.wait(starting, num_returns=len(starting), timeout=0)
            for reference in ready:
                self._roster.begin(reference)

    def _lose(self, member: Member, error: Exception) -> None:
        with self._room:
            if self._roster.lose(member, error):
                self._open.pop(member.machine, None)
                self._images.pop(member.machine, None)
                self._room.notify_all()


class _Lost(SandboxError):
    """A machine is gone."""


class _Remote(Closing):
    """Something that a keeper keeps."""

    def __init__(self, machines: Machines, member: Member, number: int) -> None:
        self._machines = machines
        self._member = member
        self._number = number
        self._is_closed = False

    def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        if self._is_closed:
            raise SandboxError("the box is closed")
        return self._machines.call(self._member, "ask", self._number, method, arguments, named)

    def close(self) -> None:
        """Close it there; harmless where it is closed, or gone."""
        if self._is_closed:
            return
        self._is_closed = True
        with suppress(_Lost):
            self._machines.call(self._member, "close", self._number)


class RemoteBox(_Remote):
    """A box on another machine; see `Sandbox`."""

    def __init__(self, machines: Machines, member: Member, number: int, workdir: str) -> None:
        super().__init__(machines, member, number)
        self.workdir = workdir

    def run(self, command: str, *, timeout_s: float) -> CommandResult:
        """See `Sandbox.run`."""
        return CommandResult(*self._ask("run", command, timeout_s=timeout_s))

    def read_file(self, path: str) -> bytes:
        """See `Sandbox.read_file`."""
        return bytes(self._ask("read_file", path))

    def write_file(self, path: str, content: bytes) -> None:
        """See `Sandbox.write_file`."""
        self._ask("write_file", path, content)

    def diff(self) -> str:
        """See `Sandbox.diff`."""
        return str(self._ask("diff"))

    def serve(self, script: str, *, limit: int | None = 1_000_000) -> Answer:
        """See `Box.serve`."""
        return Answer(*self._ask("serve", script, limit=limit))

    def record(self, pipe: str) -> RemoteRecorder:
        """See `Box.record`."""
        return RemoteRecorder(self._machines, self._member, self._ask("record", pipe))

    def close(self) -> None:
        """Remove the box."""
        if not self._is_closed:
            try:
                super().close()
            finally:
                self._machines.give_back(self._member)


class RemoteRecorder(_Remote):
    """What hears a pipe of a box on another machine; see `Recorder`."""

    def finish(self, timeout_s: float = 60.0) -> tuple[bytes, bool]:
        """See `Recorder.finish`."""
        data, complete = self._ask("finish", timeout_s=timeout_s)
        return data, complete
