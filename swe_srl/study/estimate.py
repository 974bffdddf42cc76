"""How long work of each kind took → how long what is left may take."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence


class Estimate:
    """Durations, by kind of work."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def took(self, kind: str, seconds: float) -> None:
        """One piece of work is done."""
        self._seconds[kind].append(seconds)

    def left(self, kinds: Sequence[str]) -> str:
        """Words on how long one piece of each of `kinds` may take, by the mean of those before; empty where none is known."""
        known = [statistics.fmean(self._seconds[kind]) for kind in kinds if self._seconds.get(kind)]
        if not known:
            return ""
        words = "about" if len(known) == len(kinds) else "more than"
        return f", {words} {sum(known) / 60:.0f} min left"
