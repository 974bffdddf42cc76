"""What the verbs say: progress, one-line remarks and tables on stderr; results that other programs read on stdout."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

SETTLED_S = 10.0
"""Of work, before it tells how long the rest takes."""


def speaks() -> bool:
    """Of the processes that torchrun started together, only the first one does."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"


def say(text: str) -> None:
    """One remark to the user."""
    if not speaks():
        return
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, soft_wrap=True, markup=False)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Pass `items` through with a progress bar; without a terminal, a line about every tenth of the work."""
    with progress(description, total) as advance:
        for number, item in enumerate(items, start=1):
            advance(number, total or 0)
            yield item


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, total), with the time that is left. Without a terminal it prints a line about every tenth of the work."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if not speaks():
        yield lambda *_: None
        return
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _plain(console.print, description)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
        bar = bars.add_task(description, total=total)
        yield lambda done, of: bars.update(bar, completed=done, total=of or total)


def _plain(emit: Callable[[str], None], description: str) -> Callable[[int, int], None]:
    said, begun, first = -1, time.monotonic(), -1

    def advance(done: int, total: int) -> None:
        nonlocal said, first
        # what is done at the first call was done earlier, by a run that this one goes on with
        first = done if first < 0 else first
        tenth = done * 10 // total if total else done // 10
        if tenth != said:
            said = tenth
            left = time_left(time.monotonic() - begun, done - first, total - done)
            emit(f"{description}: {done}{f' of {total}' if total else ''}{left}")

    return advance


def time_left(seconds: float, done: int, to_do: int) -> str:
    """Words on how long `to_do` will take where `done` took so many seconds; empty where that says nothing, or is under a minute."""
    minutes = seconds / done * to_do / 60 if done > 0 and seconds >= SETTLED_S else 0.0
    if minutes < 1:
        return ""
    return f", about {minutes / 60:.1f} h left" if minutes >= 100 else f", about {minutes:.0f} min left"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*head, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))  # a plain string's [words] would be taken as markup
    console = Console(highlight=False)
    console.print(drawn) if console.is_terminal else Console(highlight=False, width=160).print(drawn)
