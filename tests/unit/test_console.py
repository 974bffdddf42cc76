"""How far long work is, where nobody looks at a bar."""

from __future__ import annotations

import pytest

from swe_srl.cli import console
from swe_srl.cli.console import time_left


@pytest.mark.parametrize(
    ("seconds", "done", "to_do", "words"),
    [
        (300.0, 5, 10, ", about 10 min left"),
        (7200.0, 2, 8, ", about 8.0 h left"),
        (300.0, 0, 10, ""),
        (300.0, 10, 1, ""),
        (5.0, 1, 1000, ""),
        (300.0, 10, 0, ""),
    ],
)
def test_what_is_left_is_said_in_minutes_where_it_is_worth_it(
    seconds: float, done: int, to_do: int, words: str
) -> None:
    assert time_left(seconds, done, to_do) == words


def test_a_run_that_is_gone_on_with_counts_only_its_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    said: list[str] = []
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    advance = console._plain(said.append, "training")
    for done in (50, 51, 60):
        advance(done, 100)
        now[0] += 60
    assert said == ["training: 50 of 100", "training: 60 of 100, about 8 min left"]
