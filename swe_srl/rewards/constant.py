"""The teacher's actions and a reward → what a model would earn that gives one and the same action at every step.

A similarity is not 0 for who looks at nothing: by `similarity`, which counts an action's frame and usual words too, one
fixed `sed` earns 0.73 at the held-out steps of docs/study.md. What a student earns is to be read beside that.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from swe_srl.dialogue import format_action, format_completion
from swe_srl.rewards.base import RewardFn
from swe_srl.schema import Command

MAX_CANDIDATES = 50
"""Actions that are tried: the commonest, and of equally common ones the first."""
MAX_STEPS = 500
"""Steps on which each is tried, evenly spaced."""


def best_constant(teacher: Sequence[Command], reward: RewardFn) -> tuple[Command, float]:
    """Of the teacher's actions, one for each step and at least one, that which earns most if it is given at every step, and what it earns there."""
    by_text = {format_action(command): command for command in reversed(teacher)}
    common = [by_text[text] for text, _ in Counter(map(format_action, teacher)).most_common(MAX_CANDIDATES)]
    tried = teacher[:: -(-len(teacher) // MAX_STEPS)]
    earned = [(action, constant_reward(action, tried, reward)) for action in common]
    return max(earned, key=lambda pair: pair[1])


def constant_reward(action: Command, teacher: Sequence[Command], reward: RewardFn) -> float:
    """The mean reward of `action`, given without a thought at each of the steps."""
    answer = format_completion("", action)
    return statistics.fmean(reward(answer, command).value for command in teacher)


def in_a_line(action: Command, most: int = 50) -> str:
    """An action as a reader is told of it: its tool and arguments, at most so many characters."""
    text = " ".join(" ".join([action.tool, *map(str, action.arguments.values())]).split())
    return text if len(text) <= most else f"{text[:most]}…"
