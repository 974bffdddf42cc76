"""What one action at every step earns: what likeness is worth, is to be read beside it."""

from __future__ import annotations

from difflib import SequenceMatcher

import pytest

from swe_srl.dialogue import format_action
from swe_srl.rewards.constant import MAX_STEPS, best_constant, constant_reward, in_a_line
from swe_srl.rewards.similarity import SimilarityConfig
from swe_srl.rewards.structured import StructuredConfig
from swe_srl.schema import Command, Reward

SIMILARITY, STRUCTURED = SimilarityConfig().build(), StructuredConfig().build()
SUBMIT = Command(tool="submit")


def bash(command: str) -> Command:
    return Command(tool="bash", arguments={"command": command})


READS = [bash(f"cat src/part_{n}/module.py") for n in range(6)]


def test_it_is_the_action_that_earns_most_and_not_the_commonest() -> None:
    teacher = [SUBMIT, *READS, SUBMIT]
    found, earned = best_constant(teacher, SIMILARITY)
    assert found in READS
    alike = SequenceMatcher(None, format_action(SUBMIT), format_action(READS[0]), autojunk=False).ratio()
    submitting = constant_reward(SUBMIT, teacher, SIMILARITY)
    assert submitting == pytest.approx((2 + 6 * alike) / 8)
    assert earned == constant_reward(found, teacher, SIMILARITY) > submitting + 0.2
    assert constant_reward(SUBMIT, [SUBMIT], SIMILARITY) == 1.0


def test_a_reward_that_looks_at_arguments_pays_less_for_it() -> None:
    teacher = [bash(word * 9) for word in "abcdefg"]
    by_text, by_part = (best_constant(teacher, one)[1] for one in (SIMILARITY, STRUCTURED))
    assert by_text > by_part + 0.2


def test_of_very_many_steps_the_commonest_actions_are_tried_at_some() -> None:
    seen: list[tuple[str, Command]] = []

    class Counting:
        def __call__(self, completion: str, expert: Command) -> Reward:
            seen.append((completion, expert))
            return SIMILARITY(completion, expert)

        def of_texts(self, student: str, expert: str) -> Reward:
            raise NotImplementedError

    teacher = [bash(f"cat {n // 20}.py") for n in range(2 * MAX_STEPS + 40)]
    assert best_constant(teacher, Counting())[0] in teacher
    assert len({completion for completion, _ in seen}) == 50
    assert len(seen) == 50 * 347 <= 50 * MAX_STEPS


def test_it_is_told_in_one_line() -> None:
    assert in_a_line(SUBMIT) == "submit"
    assert in_a_line(bash("cd /testbed\ngrep -rn  x")) == "bash cd /testbed grep -rn x"
    assert in_a_line(bash("x" * 80)) == f"bash {'x' * 45}…"
