"""How often a reward orders rollouts as their effects do: counted by hand, and ties are counted as ties."""

import pytest

from swe_srl.evaluation.calibration import StepRewards, agreement, agreements


def row(effect, reward, task="a", tool="bash", verb="grep"):
    return StepRewards(
        step_id=f"{task}/{len(effect)}", task_id=task, tool=tool, verb=verb, values={"effect": effect, "r": reward}
    )


def test_pairs_are_same_tied_or_reversed_and_those_of_one_effect_are_left_out():
    pairs = agreement([row((0.0, 0.5, 1.0, 1.0), (0.1, 0.3, 0.3, 0.0))], "r")
    assert (pairs.num_same, pairs.num_tied, pairs.num_reversed, pairs.num_without_order) == (2, 1, 2, 1)
    assert pairs.num_steps == 1
    assert pairs.tau.value == 0.0


def test_tau_is_one_for_the_effects_own_order_and_minus_one_for_its_reverse():
    effect = (0.0, 0.2, 0.9)
    assert agreement([row(effect, (1.0, 2.0, 3.0))], "r").tau.value == 1.0
    assert agreement([row(effect, (3.0, 2.0, 1.0))], "r").tau.value == -1.0
    assert agreement([row(effect, (5.0, 5.0, 5.0))], "r").tau.value == 0.0
    assert agreement([row((1.0, 1.0), (0.0, 1.0))], "r").num_steps == 0


def test_the_interval_is_over_tasks_and_not_over_pairs():
    rows = [row((0.0, 0.3, 0.6, 1.0), (0.0, 0.3, 0.6, 1.0), "a"), row((0.0, 0.3, 0.6, 1.0), (1.0, 0.6, 0.3, 0.0), "b")]
    tau = agreement(rows, "r").tau
    assert (tau.value, tau.low, tau.high, tau.n) == (0.0, -1.0, 1.0, 12)


def test_every_tool_and_every_verb_has_its_own_lines():
    rows = [row((0.0, 1.0), (0.0, 1.0)), row((0.0, 1.0), (1.0, 0.0), "b", verb="sed"), row((), (), "c", "submit", "")]
    found = {(words, pairs.reward): pairs.tau.value for words, pairs in agreements(rows)}
    assert found == {
        ("all", "r"): 0.0, ("bash", "r"): 0.0, ("bash: grep", "r"): 1.0, ("bash: sed", "r"): -1.0, ("submit", "r"): 0.0,
    }  # fmt: skip
    assert list(agreements([])) == []


def test_a_reward_that_is_missing_for_a_rollout_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        agreement([row((0.0, 1.0), (0.0,))], "r")


def test_beside_the_tests_the_effect_is_one_of_the_rewards_and_steps_without_tests_are_left_out():
    judged = row((0.0, 1.0), (1.0, 0.0))
    judged = judged.model_copy(update={"values": {**judged.values, "tests": (0.0, 0.5)}})
    found = [
        (words, pairs.reward, pairs.tau.value)
        for words, pairs in agreements([judged, row((0.0, 1.0), (0.0, 1.0), "b")], "tests")
    ]
    assert found[:2] == [("all", "effect", 1.0), ("all", "r", -1.0)]
    assert {pairs.num_steps for _, pairs in agreements([judged], "tests")} == {1}
    assert [pairs.reward for words, pairs in agreements([judged]) if words == "all"] == ["r"]
