"""A student's actions and the expert's, each in a copy of the expert's state → Rewards: did they do the same?

Two commands may be written quite differently and do the same, or differ by one letter and do not. Here both are run, and what
they did is compared: the git tree they leave, their exit code, and their output after normalisation.

This stands in `replay`: the rewards of `swe_srl/rewards` are pure functions of two texts and need no container engine, while
this one needs boxes, replay's tools and its comparison of outputs. It measures the others (scripts/bench/calibration.py), and
SRL can be trained with it (swe_srl/training/step_rewards.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pydantic import Field

from swe_srl.dialogue import format_action, parse
from swe_srl.errors import SandboxError
from swe_srl.replay.compare import similarity
from swe_srl.replay.tools import perform
from swe_srl.rewards.base import malformed
from swe_srl.runtime.base import CommandResult, Sandbox
from swe_srl.runtime.history import tree_hash
from swe_srl.schema import Command, Reward, Step
from swe_srl.settings import Config

OpenBox = Callable[[], Sandbox]
"""Opens a fresh box of a step's task, with the kind of shell session that its trajectory had."""


class EffectConfig(Config):
    """How effects are compared."""

    unparsed_reward: float = -1.0
    """Reward of a completion in which no action could be found."""
    exit_share: float = Field(0.2, ge=0, le=1)
    """Of the reward, what the exit code decides; the rest is the output's, or the change's where the expert made one."""
    command_timeout_s: float = Field(60.0, gt=0)


class Effect(NamedTuple):
    """What one action did."""

    result: CommandResult
    tree_before: str
    """Hash of everything that git does not ignore; empty where there is no repository."""
    tree_after: str


def rewards_of(
    completions: Sequence[str],
    step: Step,
    history: Sequence[Step],
    open_box: OpenBox,
    config: EffectConfig | None = None,
) -> list[Reward]:
    """The reward of each of a student's completions at one step; `history` is the steps before it, in order.

    Each action is run once, in a box of its own; one that is written as the expert's is not run and has its effect. What
    files outside the repository or ignored by git became is not seen. Raises SandboxError when a box breaks or the state of
    the step is not reached again, other ApparatusErrors when there is no box: none of these is a reward.
    """
    config = config or EffectConfig()
    known = {format_action(step.command): _done_the_same()}
    expert: Effect | None = None
    rewards = []
    for completion in completions:
        parsed = parse(completion)
        if parsed.command is None:
            rewards.append(malformed(config.unparsed_reward, parsed.problem))
            continue
        action = format_action(parsed.command)
        if action not in known and "submit" in (parsed.command.tool, step.command.tool):
            known[action] = _reward(0.0, tree=0.0, exit_code=0.0, output=0.0, note="one of the two ends the episode")
        if action not in known:
            expert = expert or effect_of(step.command, history, open_box, config)
            student = effect_of(parsed.command, history, open_box, config)
            known[action] = compare_effects(student, expert, step.command, config)
        rewards.append(known[action])
    return rewards


def effect_of(command: Command, history: Sequence[Step], open_box: OpenBox, config: EffectConfig) -> Effect:
    """What `command` does in a fresh box in which `history` was done before. Raises as `rewards_of` does."""
    with open_box() as box:
        reach(history, box, timeout_s=config.command_timeout_s)
        before = tree_hash(box)
        result = perform(command, box, timeout_s=config.command_timeout_s)
        return Effect(result, before, tree_hash(box))


def reach(history: Sequence[Step], box: Sandbox, *, timeout_s: float) -> None:
    """Bring a fresh box to the state behind `history`. Raises SandboxError where a command ends otherwise than it did."""
    for earlier in history:
        if earlier.command.tool == "submit":
            continue
        now = perform(earlier.command, box, timeout_s=timeout_s)
        if earlier.exit_code is not None and now.exit_code != earlier.exit_code:
            raise SandboxError(
                f"the state behind {earlier.step_id} is not reached again: its command ends with exit code {now.exit_code}, "
                f"not {earlier.exit_code}: replay the trajectory anew, or leave it out"
            )


def compare_effects(student: Effect, expert: Effect, command: Command, config: EffectConfig) -> Reward:
    """How nearly a student's action did what the expert's `command` did, in [0, 1].

    Another tree is another state, and worth 0. Where the expert changed the tree and the student made the same change, what
    either said about it does not matter; where nothing was changed, the output is what the action was for.
    """
    if student.tree_before != expert.tree_before:
        raise SandboxError(
            "two copies of one state differ before anything was done in them: a command of its history is not steady"
        )
    same_tree = student.tree_after == expert.tree_after
    same_exit = (student.result.exit_code, student.result.timed_out) == (
        expert.result.exit_code,
        expert.result.timed_out,
    )
    line = command.arguments.get("command", "") if command.tool == "bash" else ""
    alike = similarity(student.result.output, expert.result.output, line)
    content = 1.0 if expert.tree_after != expert.tree_before else alike
    value = (1 - config.exit_share) * content + config.exit_share * same_exit if same_tree else 0.0
    note = "" if same_tree else "another tree"
    return _reward(value, tree=float(same_tree), exit_code=float(same_exit), output=alike, note=note)


def _done_the_same() -> Reward:
    return _reward(1.0, tree=1.0, exit_code=1.0, output=1.0, note="the expert's own action")


def _reward(value: float, *, tree: float, exit_code: float, output: float, note: str) -> Reward:
    parts = {"well_formed": 1.0, "tree": tree, "exit_code": exit_code, "output": output}
    return Reward(value=value, parts=parts, note=note)
