"""The processes of one run: what torchrun started together, or this process alone.

Every process knows the whole batch and comes to the same decisions; what differs is who does what. The process of rank
0, the lead, alone writes to the run directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from swe_srl.schema import Record
from swe_srl.store import Run

T = TypeVar("T")
Made = TypeVar("Made")
R = TypeVar("R", bound=Record)

PATIENCE = timedelta(hours=24)
"""How long one process waits for the others: episodes of one can take hours longer than another's, and torchrun sees by
itself when a process has died."""


class Team:
    """Processes that work on the same run. Every method but the properties is to be called by all of them."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def is_lead(self) -> bool:
        """Of all processes, one is."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The `value` of every process, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def agree(self, value: T) -> T:
        """The lead's. What the processes see on the disk may differ by what the lead is still writing."""
        return self.gather(value)[0]

    def deal(self, items: Sequence[T]) -> list[T | None]:
        """Every `size`-th of the items; filled with None to as many as every process gets."""
        own: list[T | None] = list(items[self.rank :: self.size])
        return own + [None] * (-(-len(items) // self.size) - len(own))

    def spread(self, keys: Sequence[Any], work: Callable[[list[int]], Sequence[Made]]) -> list[Made]:
        """What `work` makes of the places of `keys`, one for each, in their order; each process works on its share.

        Keys that are alike go to one process, and keys that begin alike mostly do.
        """
        if self.size == 1:
            return list(work(list(range(len(keys)))))
        own = self._share(keys)
        made: dict[int, Made] = {}
        for found in self.gather(dict(zip(own, work(own) if own else (), strict=True))):
            made |= found
        return [made[place] for place in range(len(keys))]

    def _share(self, keys: Sequence[Any]) -> list[int]:
        order = sorted(range(len(keys)), key=lambda place: keys[place])

        def cut(rank: int) -> int:
            place = len(order) * rank // self.size
            while 0 < place < len(order) and keys[order[place]] == keys[order[place - 1]]:
                place += 1
            return place

        return sorted(order[cut(self.rank) : cut(self.rank + 1)])

    @contextmanager
    def appending(self, run: Run, name: str, record: type[R]) -> Iterator[Callable[[R], object]]:
        """What adds a record to a file of the run; in all processes but the lead it does nothing."""
        if not self.is_lead:
            yield lambda _: None
            return
        with run.append(name, record) as file:
            yield file.write


ALONE = Team()


@contextmanager
def assembled(device: str) -> Iterator[Team]:
    """The processes that torchrun started with this one, each with a GPU of its own unless `device` is `cpu`."""
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    yield Team(dist.get_rank(), dist.get_world_size())
    # Not after an error: the others may wait in a collective, and it would wait for them. torchrun ends them all.
    dist.destroy_process_group()
