"""Numbers → where they stand on a plot, in percent of its width and height; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from swe_srl.reporting.training import TrainingRun

MAX_DOTS = 60
"""A line of more points is drawn without dots."""

MEASURES = (
    ("reward_mean", "Reward", "mean of all samples"),
    ("reward_std", "Spread of rewards", "standard deviation within a group, mean over groups"),
    ("well_formed", "Well-formed answers", "share of samples"),
    ("commonest_action", "Same action", "share of samples that do the same as most, at whatever step"),
    ("groups_kept", "Groups kept", "that an update learns from"),
    ("groups_thrown", "Groups thrown away", "rewards alike, or all malformed"),
    ("completion_tokens_mean", "Answer length", "tokens, mean of all samples"),
    ("turns_mean", "Turns", "per episode"),
    ("clip_share", "Clip share", "of tokens whose ratio was clipped"),
    ("entropy", "Entropy", "nats per token"),
    ("loss", "Loss", "of the update"),
    ("kl", "Divergence", "from the reference, nats"),
    ("grad_norm", "Gradient norm", "before clipping"),
    ("lr", "Learning rate", ""),
    ("seconds", "Seconds", "per update"),
)
"""(name in metrics.jsonl, title, what is counted), in the order of the page."""

_EVEN_ZERO = {"reward_mean", "reward_std", "groups_kept", "clip_share"}
"""Shown of runs that sample even where all is zero, which says something; the others only where there is something to see."""


class Scale(NamedTuple):
    """A range of values with round ends."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Percent of the way from `low` to `high`, within [0, 100]."""
        return round(100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 3)


class Line(NamedTuple):
    """One run on a chart."""

    label: str
    path: str
    """SVG path data in a square of 100 x 100."""
    dots: tuple[tuple[float, float], ...]
    points: tuple[tuple[float, float], ...]
    """(update, value), as measured."""


class Chart(NamedTuple):
    """One measure over updates."""

    name: str
    title: str
    unit: str
    x: Scale
    y: Scale
    lines: tuple[Line, ...]


def scale_of(values: Sequence[float], *, steps: int = 4, with_zero: bool = False) -> Scale:
    """About `steps` equal steps of 1, 2 or 5 times a power of ten that hold all `values`."""
    low, high = min(values), max(values)
    if with_zero or (0 < low < 0.7 * high):
        low = min(0.0, low)
        high = max(0.0, high)
    if high == low:
        low, high = (0.0, 1.0) if low == 0 else (min(0.0, low), max(0.0, high))
    rough = (high - low) / steps
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Scale(first * step, last * step, tuple(number * step for number in range(first, last + 1)))


def charts(runs: Sequence[TrainingRun]) -> list[Chart]:
    """The measures of runs that share an algorithm."""
    found = []
    is_sampled = any(run.series("reward_mean") for run in runs)
    for name, title, unit in MEASURES:
        series = [(run.label, run.series(name)) for run in runs]
        values = [value for _, points in series for _, value in points]
        if not any(values) and not (values and is_sampled and name in _EVEN_ZERO):
            continue
        updates = [update for _, points in series for update, _ in points]
        x = Scale(min(updates), max(*updates, min(updates) + 1), (min(updates), max(updates)))
        y = scale_of(values)
        lines = tuple(_line(label, points, x, y) for label, points in series if points)
        found.append(Chart(name, title, unit, x, y, lines))
    return found


def _line(label: str, points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> Line:
    places = [(x.place(update), round(100 - y.place(value), 3)) for update, value in points]
    path = "M" + "L".join(f"{across:g} {down:g}" for across, down in places)
    return Line(label, path, tuple(places) if len(places) <= MAX_DOTS else (), tuple(points))


def symmetric(values: Sequence[float]) -> Scale:
    """A scale with zero in its middle."""
    reach = max((abs(value) for value in values), default=0.0) or 1.0
    end = scale_of([0.0, reach], steps=2, with_zero=True).high
    return Scale(-end, end, (-end, 0.0, end))
