"""Answers drawn at held-out steps → what they are worth by other measures than the similarity they were drawn for; nothing is drawn again.

And what one action at every step earns by each, for a similarity counts the frame of an action too: see `rewards.constant`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from swe_srl.dialogue import format_action, format_completion
from swe_srl.rewards.base import RewardFn
from swe_srl.rewards.constant import best_constant
from swe_srl.rewards.load import reward_config
from swe_srl.schema import Command, Step, StepAgreement
from swe_srl.store import read_records
from swe_srl.study.config import StudyConfig

SIMILARITY = "step similarity"
EXACT = "exactly the teacher's action"


class Measures:
    """The measures of a study, beside the teacher's actions."""

    def __init__(self, config: StudyConfig) -> None:
        """Reads the held-out steps. Raises UserError where they or a reward are not there."""
        self._teacher: Mapping[str, Command] = {
            step.step_id: step.command for step in read_records(Path(config.heldout_steps), Step)
        }
        self._similarity = reward_config(config.reward).build()
        self._others: dict[str, RewardFn] = {f"step {name}": reward_config(name).build() for name in config.also}

    def of(self, row: StepAgreement) -> dict[str, float]:
        """Each other measure of the answers at one step, its mean over them; what cannot be read counts 0."""
        found = {} if row.num_exact is None else {EXACT: row.num_exact / row.num_samples}
        teacher = self._teacher.get(row.step_id)
        if teacher and row.samples:
            for name, reward in self._others.items():
                found[name] = statistics.fmean(_worth(reward, sample.text, teacher) for sample in row.samples)
        return found

    def of_a_constant(self, step_ids: Iterable[str]) -> dict[str, float]:
        """What the action earns that, of the teacher's at these steps, earns most if it is given at all of them; for each measure its own."""
        teacher = [self._teacher[step_id] for step_id in sorted(step_ids) if step_id in self._teacher]
        if not teacher:
            return {}
        rewards = {SIMILARITY: self._similarity, **self._others}
        found = {EXACT: max(Counter(map(format_action, teacher)).values()) / len(teacher)}
        for name, reward in rewards.items():
            answer = format_completion("", best_constant(teacher, reward)[0])
            found[name] = statistics.fmean(_worth(reward, answer, command) for command in teacher)
        return found


def _worth(reward: RewardFn, answer: str, teacher: Command) -> float:
    """As step similarity counts: what is worth less than nothing is worth nothing."""
    return max(0.0, reward(answer, teacher).value)
