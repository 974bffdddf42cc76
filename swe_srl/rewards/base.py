"""What every reward promises."""

from __future__ import annotations

from typing import Protocol

from swe_srl.schema import Command, Reward


class RewardFn(Protocol):
    """Compares what a student wrote with what the expert did. Pure: same arguments, same reward, always finite."""

    def __call__(self, completion: str, expert: Command) -> Reward:
        """Reward of a student's whole completion against the expert's action at the same step."""
