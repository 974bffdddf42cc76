"""Items that wait, machines that are free → which machine works on which item next.

The rule. A free machine takes, of the items that wait,
1. the first whose image it has worked on before;
2. else the first whose image none of the machines has worked on;
3. else the last whose machines all are far busier: more waits for each of them than it can take in its next round.

So items of one image stay together as long as no machine stands idle for it longer than another needs for one round of
what is waiting. Any hashable thing can stand in place of an image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Placement(Generic[Item]):
    """The items that wait for a machine, in their order, and what each machine has worked on."""

    def __init__(self, image_of: Callable[[Item], object], num_slots: int) -> None:
        """`num_slots` items run at once on each machine."""
        self._image_of = image_of
        self._num_slots = num_slots
        self._waiting: list[Item] = []
        self._seen: dict[str, set[object]] = {}

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    def join(self, machine: str) -> None:
        """A machine is there; what it worked on before it went is not counted on."""
        self._seen[machine] = set()

    def leave(self, machine: str) -> None:
        """A machine is gone, and its images with it. Harmless where it is not known."""
        self._seen.pop(machine, None)

    def add(self, item: Item, *, in_front: bool = False) -> None:
        """`item` waits, behind all others or, where a machine was lost under it, before them."""
        self._waiting.insert(0 if in_front else len(self._waiting), item)

    def clear(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()

    def take(self, machine: str) -> Item | None:
        """The item that a free slot of `machine` is to have, by the rule above; None where it is to wait."""
        position = self._position(machine)
        if position is None:
            return None
        item = self._waiting.pop(position)
        self._seen[machine].add(self._image_of(item))
        return item

    def _position(self, machine: str) -> int | None:
        images = [self._image_of(item) for item in self._waiting]
        seen = self._seen[machine]
        for position, image in enumerate(images):
            if image in seen:
                return position
        known = set().union(*self._seen.values())
        for position, image in enumerate(images):
            if image not in known:
                return position
        load = Counter(name for image in images for name, has in self._seen.items() if image in has)
        for position in reversed(range(len(images))):
            if all(load[name] > self._num_slots for name, has in self._seen.items() if images[position] in has):
                return position
        return None
