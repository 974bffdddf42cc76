"""Held-out Steps + Policy → how often, and how nearly, the model does what the teacher did next."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from pydantic import Field

from swe_srl.dialogue import ContextConfig, parse, render, turn_of
from swe_srl.errors import FormatError, UnknownTask
from swe_srl.policy.base import Completion, Policy, Sampling
from swe_srl.rewards.base import RewardFn
from swe_srl.rewards.constant import best_constant, constant_reward
from swe_srl.schema import STEP_AGREEMENT, Command, Mean, Proportion, Rollout, Step, StepAgreement, Task
from swe_srl.settings import Config
from swe_srl.statistics import agreement_by_tool, bootstrap_mean, constant_mean, exact_rate, quantiles, wilson
from swe_srl.store import Run

T = TypeVar("T")

SETTINGS = "agree.json"


class AgreementConfig(Config):
    """How step agreement is measured."""

    context: ContextConfig = ContextConfig()
    sampling: Sampling = Sampling(temperature=1.0)
    num_samples: int = Field(4, ge=1)
    """Answers drawn at each step."""
    batch_size: int = Field(4, ge=1)
    """Steps answered in one call of the policy."""
    max_steps: int | None = Field(None, ge=1)
    """Measure only so many, spread evenly over all; their histories stay whole."""


def agree(
    steps: Sequence[Step],
    tasks: Mapping[str, Task],
    policy: Policy,
    reward: RewardFn,
    run: Run,
    config: AgreementConfig,
    *,
    model: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> list[StepAgreement]:
    """Measure every step, in order of trajectory and index, however the file is ordered; rows go to `step_agreement.jsonl` as they are ready.

    `model` is the name in the rows; the policy's own where empty. Steps are cut into the same batches at every start, so that a run that was stopped asks the
    same questions with the same seeds; a policy in this process may answer differently where two tokens are all but equally likely, since it has not read the earlier batches again.
    Raises UnknownTask or FormatError before anything is sampled, UserError when the run was started with other settings.
    """
    ordered = sorted(steps, key=lambda step: (step.trajectory_id, step.index))
    histories = spread(list(with_history(ordered, tasks)), config.max_steps)
    constant = best_constant([step.command for step, _ in histories], reward)[0] if histories else None
    model = model or policy.name
    with run.exclusive():
        run.remember(SETTINGS, {"model": model, "num_steps": len(steps), **config.model_dump(mode="json")})
        rows = {row.step_id: row for row in run.read(STEP_AGREEMENT, StepAgreement)}
        with run.append(STEP_AGREEMENT, StepAgreement) as file:
            for start in range(0, len(histories), config.batch_size):
                batch = histories[start : start + config.batch_size]
                if any(step.step_id not in rows for step, _ in batch):
                    for row in _measure(batch, tasks, policy, reward, model, config, constant):
                        if row.step_id not in rows:
                            file.write(row)
                            rows[row.step_id] = row
                if progress:
                    progress(start + len(batch), len(histories))
    return [rows[step.step_id] for step, _ in histories]


def spread(items: list[T], limit: int | None) -> list[T]:
    """At most `limit` of `items`, evenly spaced, in order."""
    if limit is None or limit >= len(items):
        return items
    return [items[index * len(items) // limit] for index in range(limit)]


def with_history(steps: Sequence[Step], tasks: Mapping[str, Task]) -> Iterator[tuple[Step, list[Step]]]:
    """Each step with the steps of its trajectory before it."""
    trajectories: dict[str, dict[int, Step]] = {}
    seen: set[str] = set()
    for step in steps:
        if step.task_id not in tasks:
            raise UnknownTask(
                f"step {step.step_id}: no task {step.task_id!r} among the {len(tasks)} given: are these steps of other --tasks?"
            )
        if step.step_id in seen:
            raise FormatError(f"step {step.step_id} stands twice in the steps: keep one of the two")
        seen.add(step.step_id)
        trajectories.setdefault(step.trajectory_id, {})[step.index] = step
    for step in steps:
        earlier = trajectories[step.trajectory_id]
        yield step, [earlier[index] for index in sorted(earlier) if index < step.index]


def _measure(
    batch: Sequence[tuple[Step, Sequence[Step]]],
    tasks: Mapping[str, Task],
    policy: Policy,
    reward: RewardFn,
    model: str,
    config: AgreementConfig,
    constant: Command | None,
) -> Iterator[StepAgreement]:
    prompts = [
        render(tasks[step.task_id], [turn_of(earlier) for earlier in history], config.context)
        for step, history in batch
    ]
    answers = policy.complete(prompts, config.sampling, num_samples=config.num_samples)
    for (step, _), completions in zip(batch, answers, strict=True):
        yield measure_step(step, completions, reward, model, constant)


def measure_step(
    step: Step, completions: Sequence[Completion], reward: RewardFn, model: str, constant: Command | None = None
) -> StepAgreement:
    """Compare the answers drawn at one step with the teacher's action there; beside them, what the action `constant` is worth."""
    commands = [parse(completion.text).command for completion in completions]
    rewards = [reward(completion.text, step.command) for completion in completions]
    values = [max(0.0, found.value) if command else 0.0 for found, command in zip(rewards, commands, strict=True)]
    return StepAgreement(
        step_id=step.step_id,
        trajectory_id=step.trajectory_id,
        task_id=step.task_id,
        model=model,
        tool=step.command.tool,
        num_samples=len(completions),
        similarity=math.fsum(values) / len(values),
        similarity_std=statistics.pstdev(values),
        num_well_formed=sum(command is not None for command in commands),
        num_same_tool=sum(command is not None and command.tool == step.command.tool for command in commands),
        num_exact=sum(command is not None and is_same(command, step.command) for command in commands),
        mean_tokens=sum(completion.num_tokens for completion in completions) / len(completions),
        constant=max(0.0, constant_reward(constant, [step.command], reward)) if constant else None,
        samples=tuple(
            Rollout(text=completion.text, num_tokens=completion.num_tokens, reward=found)
            for completion, found in zip(completions, rewards, strict=True)
        ),
    )


def is_same(student: Command, teacher: Command) -> bool:
    """Whether two actions are the same, white space around their arguments apart."""
    return student.tool == teacher.tool and _arguments(student) == _arguments(teacher)


def _arguments(command: Command) -> dict[str, str]:
    return {name: text for name, value in command.arguments.items() if (text := value.strip())}


def summary_lines(rows: Sequence[StepAgreement]) -> list[list[str]]:
    """(measure, value with its 95 % interval) for a table, over all steps."""
    tasks, num_samples = [row.task_id for row in rows], sum(row.num_samples for row in rows)
    similarity, exact = bootstrap_mean([row.similarity for row in rows], groups=tasks), exact_rate(rows)
    lines = [["similarity", f"{_mean(similarity)} ({similarity.n} steps)"]]
    if constant := constant_mean(rows):
        lines.append(["  of one action at every step", f"{_mean(constant)} ({constant.n} steps)"])
    if exact:
        lines.append(["exactly the teacher's action", f"{_mean(exact)} ({exact.n} steps)"])
    for words, k in (
        ("well-formed", sum(row.num_well_formed for row in rows)),
        ("same tool", sum(row.num_same_tool for row in rows)),
    ):
        share = wilson(k, num_samples)
        lines.append([words, f"{_share(share)} ({k} of {num_samples} samples)"])
    tokens = bootstrap_mean([row.mean_tokens for row in rows], groups=tasks)
    lines.append(["tokens per answer", f"{tokens.value:.1f} [{tokens.low:.1f}, {tokens.high:.1f}]"])
    spread_of = quantiles([float(length) for row in rows for length in row.answer_tokens])
    if spread_of:
        lines.append(
            [
                "  5, 25, 50, 75, 95 %; longest",
                f"{spread_of.p5:.0f}, {spread_of.p25:.0f}, {spread_of.p50:.0f}, {spread_of.p75:.0f}, {spread_of.p95:.0f}; {spread_of.max:.0f}",
            ]
        )
    return lines


TOOL_HEAD = ("teacher's tool", "steps", "similarity [95 %]", "exact [95 %]", "well-formed", "same tool")


def tool_lines(rows: Sequence[StepAgreement]) -> list[list[str]]:
    """One line under TOOL_HEAD for each tool of the teacher's."""
    return [
        [
            tool.tool,
            str(tool.num_steps),
            _mean(tool.similarity),
            _mean(tool.exact) if tool.exact else "–",
            _share(tool.well_formed),
            _share(tool.same_tool),
        ]
        for tool in agreement_by_tool(rows)
    ]


def _mean(mean: Mean) -> str:
    return f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]"


def _share(share: Proportion) -> str:
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"
