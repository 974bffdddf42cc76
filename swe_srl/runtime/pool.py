"""Boxes that will be wanted, in their order → boxes that are ready when they are asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from swe_srl.runtime.base import Sandbox
from swe_srl.runtime.open import BoxRequest


class WarmPool:
    """Opens boxes ahead, `num_ahead` at most, while those before them are used. For any number of threads.

    They are opened one after the other, in the order of `requests`: were a later one opened before an earlier one, the
    two could wait for each other where the cap on images has room for one.
    """

    def __init__(
        self, open_box: Callable[[BoxRequest], Sandbox], requests: Iterable[BoxRequest], *, num_ahead: int = 2
    ) -> None:
        self._open_box = open_box
        self._num_ahead = num_ahead
        self._coming = deque(requests)
        self._ready: list[tuple[BoxRequest, Future[Sandbox]]] = []
        self._lock = threading.Lock()
        self._opener = ThreadPoolExecutor(max_workers=1, thread_name_prefix="warm-pool")
        with self._lock:
            self._refill()

    def take(self, wanted: BoxRequest) -> Sandbox:
        """A box for `wanted`, which is the caller's to close; opened now where none was expected. Raises what opening it does."""
        with self._lock:
            found = next((item for item in self._ready if item[0] == wanted), None)
            if found:
                self._ready.remove(found)
            elif wanted in self._coming:
                self._coming.remove(wanted)
            self._refill()
        return found[1].result() if found else self._open_box(wanted)

    def close(self) -> None:
        """Close the boxes that nobody took."""
        with self._lock:
            self._coming.clear()
            left, self._ready = self._ready, []
        for _, opening in left:
            opening.cancel()
        self._opener.shutdown(wait=True)
        for _, opening in left:
            if not opening.cancelled() and opening.exception() is None:
                opening.result().close()

    def _refill(self) -> None:
        while self._coming and len(self._ready) < self._num_ahead:
            request = self._coming.popleft()
            self._ready.append((request, self._opener.submit(self._open_box, request)))
