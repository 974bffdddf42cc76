"""Several patches for one task → the one to hand in, without knowing which of them is right.

Two ways, both of them votes: how often the same patch was made, or how alike a patch is to the others in the mean by a
reward (self-consistency, Wang et al. 2023, arXiv 2203.11171; with a likeness in place of equality). Hidden tests and gold
patches are no part of it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from swe_srl.errors import ConfigError, FormatError
from swe_srl.rewards.load import REWARDS, reward_config

FIRST, VOTES = "first", "votes"

Choose = Callable[[Sequence[str]], int]
"""Patches → position of the chosen one. An empty patch is chosen only where all are empty; of equals, the first."""

_SAMPLE = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n"
_PLACE = re.compile(r"^(?:index [0-9a-f]+\.\.[0-9a-f]+.*|@@ .*)$")


def chooser(name: str) -> Choose:
    """The way to choose of that name: `first`, `votes`, or a reward that compares patches. Raises ConfigError naming them."""
    if name == FIRST:
        return _first
    if name == VOTES:
        return _most_votes
    if name not in REWARDS:
        raise ConfigError(
            f"no way {name!r} to choose a patch: take {FIRST}, {VOTES}, or a reward as patch or similarity"
        )
    reward = reward_config(name).build()

    def likeness(patch: str, other: str) -> float:
        try:
            return reward.of_texts(patch, other).value
        except FormatError:  # the other one is nothing that git could have written
            return 0.0

    try:
        reward.of_texts(_SAMPLE, _SAMPLE)
    except FormatError as error:
        raise ConfigError(
            f"the reward {name!r} compares actions, not patches: choose by patch, or by {VOTES}"
        ) from error
    return lambda patches: _most_alike(patches, likeness)


def same_patch(patch: str) -> str:
    """What two patches have in common that count as the same: not where a hunk stands, nor white space at ends of lines,
    nor added lines that are blank or only a `#` comment.
    """
    lines = [line.rstrip() for line in patch.splitlines() if not _PLACE.match(line)]
    return "\n".join(line for line in lines if line.startswith("+++") or not _is_idle(line))


def _is_idle(line: str) -> bool:
    return line.startswith("+") and (not line[1:].strip() or line[1:].lstrip().startswith("#"))


def _first(patches: Sequence[str]) -> int:
    return 0 if patches else -1


def _most_votes(patches: Sequence[str]) -> int:
    names = [same_patch(patch) for patch in patches]
    votes = Counter(name for name in names if name)
    return _best([float(votes[name]) for name in names])


def _most_alike(patches: Sequence[str], likeness: Callable[[str, str], float]) -> int:
    """The patch with the highest mean likeness to the others; an empty one is like none."""
    scores = []
    for number, patch in enumerate(patches):
        others = [other for place, other in enumerate(patches) if place != number and other.strip()]
        alike = [likeness(patch, other) for other in others] if patch.strip() else []
        scores.append(math.fsum(alike) / len(alike) if alike else (0.0 if patch.strip() else -math.inf))
    return _best(scores)


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda number: scores[number], default=-1)
