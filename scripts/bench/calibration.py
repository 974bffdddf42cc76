"""Which reward orders the rollouts of one step as what they did does: answers are drawn, run in boxes, and compared pair by pair.

    python scripts/bench/calibration.py steps.jsonl --tasks tasks --policy runs/sft --out calibration [--samples 4] [--limit 150] [--tests]

Draws answers at held-out steps (`rollouts.jsonl`), runs each in a copy of the expert's state (`effects.jsonl`; --workers boxes
at a time), and prints a table: of all pairs of rollouts of one step whose effects differ, how many a reward orders likewise,
ties, and reverses, with Kendall's tau and its 95 % bootstrap interval over tasks. With --tests the expert's remaining actions
follow each, the diff is graded (`tests.jsonl`), and a second table compares with that. Call it again to go on; --sample-only
stops before the boxes. A step whose box breaks is left out and counted.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from swe_srl.agent import open_task_box
from swe_srl.benchmarks.load import load_tasks
from swe_srl.dialogue import ContextConfig, parse, render, turn_of
from swe_srl.errors import SweSrlError
from swe_srl.evaluation.calibration import EFFECT, TESTS, Pairs, StepRewards, agreement, agreements
from swe_srl.evaluation.steps import spread, with_history
from swe_srl.fanout import fan_out
from swe_srl.grading.grader import Grader
from swe_srl.policy.base import Sampling
from swe_srl.policy.load import load_policy
from swe_srl.replay.consequence import consequence_of
from swe_srl.replay.effect import rewards_of
from swe_srl.rewards import SimilarityConfig, StructuredConfig
from swe_srl.rewards.base import RewardFn
from swe_srl.rewards.load import REWARDS
from swe_srl.rewards.targets import verb_of
from swe_srl.runtime.base import Sandbox, SandboxConfig
from swe_srl.schema import Command, Prediction, Record, Step, Task, Trajectory, Verdict
from swe_srl.settings import apply_overrides, build
from swe_srl.store import Run, read_records

ROLLOUTS = "rollouts.jsonl"
FILES = {EFFECT: "effects.jsonl", TESTS: "tests.jsonl"}

VARIANTS: dict[str, RewardFn] = {name: config().build() for name, config in REWARDS.items()} | {
    "similarity (autojunk)": SimilarityConfig(autojunk=True).build(),
    "structured (binary)": StructuredConfig(credit="binary").build(),
}
"""What is compared with the effect."""

Places = list[tuple[Step, list[Step]]]


class Measured(Record):
    """What the well-formed ones of a step's answers are worth by one measure, in their order."""

    step_id: str
    values: tuple[float, ...]


class Rollouts(Record):
    """A student's answers at one step."""

    step_id: str
    completions: tuple[str, ...]


def main() -> None:
    """Draw, run, print."""
    options = arguments()
    steps = sorted(read_records(options.steps, Step), key=lambda step: (step.trajectory_id, step.index))
    tasks = {task.task_id: task for task in load_tasks(options.tasks, sorted({step.task_id for step in steps}))}
    places = spread(list(with_history(steps, tasks)), options.limit)
    run = Run(options.out)
    with run.exclusive():
        run.remember(
            "calibration.json", {"policy": options.policy, "num_samples": options.samples, "seed": options.seed}
        )
        draw(places, tasks, run, options)
        if options.sample_only:
            return
        judges = {EFFECT: effects(tasks, options)} | ({TESTS: tests(steps, tasks, options)} if options.tests else {})
        for measure, judge in judges.items():
            for sentence in run_all(places, run, options.workers, FILES[measure], judge):
                print(f"left out: {sentence}", file=sys.stderr)
    rollouts = {row.step_id: row.completions for row in run.read(ROLLOUTS, Rollouts)}
    found = {measure: {row.step_id: row.values for row in run.read(FILES[measure], Measured)} for measure in judges}
    rows = [
        compared(step, rollouts[step.step_id], {name: of[step.step_id] for name, of in found.items() if step.step_id in of})
        for step, _ in places
        if step.step_id in found[EFFECT]
    ]  # fmt: skip
    for measure in judges:
        print("\n".join([about(rows, measure, len(places)), "", *lines(rows, measure), ""]))


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", type=Path, help="steps.jsonl of a replay")
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--trajectories",
        type=Path,
        help="trajectories.jsonl, for their kind of shell session; persistent where not given",
    )
    parser.add_argument("--samples", type=int, default=4, help="answers at each step, at temperature 1")
    parser.add_argument("--limit", type=int, help="only so many steps, spread evenly")
    parser.add_argument("--batch", type=int, default=8, help="steps in one call of the policy")
    parser.add_argument("--workers", type=int, default=2, help="boxes at a time")
    parser.add_argument("--max-new-tokens", type=int, default=120)
    parser.add_argument("--max-observation-chars", type=int, default=1100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample-only", action="store_true")
    parser.add_argument("--tests", action="store_true", help="also grade what each answer comes to")
    parser.add_argument("--box", action="append", help="a setting of the boxes, as type=bubblewrap")
    return parser.parse_args()


def draw(places: Places, tasks: Mapping[str, Task], run: Run, options: argparse.Namespace) -> None:
    """Answers at each step that has none yet."""
    done = run.done(ROLLOUTS, Rollouts, lambda row: row.step_id)
    pending = [place for place in places if place[0].step_id not in done]
    if not pending:
        return
    context = ContextConfig(max_observation_chars=options.max_observation_chars)
    sampling = Sampling(temperature=1.0, max_new_tokens=options.max_new_tokens, seed=options.seed)
    policy = load_policy(options.policy)
    try:
        with run.append(ROLLOUTS, Rollouts) as file:
            for start in range(0, len(pending), options.batch):
                batch = pending[start : start + options.batch]
                prompts = [
                    render(tasks[step.task_id], [turn_of(item) for item in history], context) for step, history in batch
                ]
                answers = policy.complete(prompts, sampling, num_samples=options.samples)
                for (step, _), group in zip(batch, answers, strict=True):
                    file.write(Rollouts(step_id=step.step_id, completions=tuple(answer.text for answer in group)))
                print(f"drawn: {start + len(batch)} of {len(pending)}", file=sys.stderr, flush=True)
    finally:
        policy.close()


Judge = Callable[[Step, list[Step], list[str]], tuple[float, ...]]
"""A step, the steps before it, and well-formed answers → what each is worth by a measure."""


def effects(tasks: Mapping[str, Task], options: argparse.Namespace) -> Judge:
    """What each answer does, beside what the expert's action does."""
    open_box = boxes(tasks, options)

    def judge(step: Step, history: list[Step], texts: list[str]) -> tuple[float, ...]:
        return tuple(reward.value for reward in rewards_of(texts, step, history, lambda: open_box(step)))

    return judge


def tests(steps: Sequence[Step], tasks: Mapping[str, Task], options: argparse.Namespace) -> Judge:
    """What the tests say when each answer is followed by the expert's later actions. No diff is graded twice."""
    open_box, known = boxes(tasks, options), dict[tuple[str, str], Verdict]()
    grader = Grader(options.tasks, box_config(options))
    later = defaultdict(list)
    for step in steps:
        later[step.trajectory_id].append(step)

    def grade(prediction: Prediction) -> Verdict:
        key = (prediction.task_id, prediction.patch)
        if key not in known:
            known[key] = grader.grade(prediction).verdict
        return known[key]

    def judge(step: Step, history: list[Step], texts: list[str]) -> tuple[float, ...]:
        rest = [item for item in later[step.trajectory_id] if item.index > step.index]
        worth = partial(consequence_of, step=step, history=history, open_box=lambda: open_box(step), grade=grade, rest=rest)  # fmt: skip
        by_text = {text: worth(text).value for text in dict.fromkeys(texts)}
        return tuple(by_text[text] for text in texts)

    return judge


def box_config(options: argparse.Namespace) -> SandboxConfig:
    """How boxes are."""
    return build(SandboxConfig, apply_overrides({}, options.box or []), origin="--box")


def boxes(tasks: Mapping[str, Task], options: argparse.Namespace) -> Callable[[Step], Sandbox]:
    """What opens a fresh box of a step's task, with its trajectory's kind of session."""
    sessions, config = sessions_of(options.trajectories), box_config(options)

    def open_box(step: Step) -> Sandbox:
        session = sessions.get(step.trajectory_id, "persistent")
        return open_task_box(tasks[step.task_id], config.model_copy(update={"session": session}), "calibration")

    return open_box


def run_all(places: Places, run: Run, workers: int, name: str, judge: Judge) -> list[str]:
    """Judge the rollouts at each step that is not in the file `name` yet; what was left out, and why."""
    rollouts = {row.step_id: row.completions for row in run.read(ROLLOUTS, Rollouts)}
    done = run.done(name, Measured, lambda row: row.step_id)
    pending = [place for place in places if place[0].step_id not in done]
    broken = []

    def work(place: tuple[Step, list[Step]]) -> Measured:
        step, history = place
        return Measured(step_id=step.step_id, values=judge(step, history, well_formed(rollouts[step.step_id])))

    with run.append(name, Measured) as file:
        for number, outcome in enumerate(fan_out(work, pending, workers=workers), start=1):
            if outcome.value is None:
                broken.append(f"{outcome.item[0].step_id}: {outcome.failure}")
            else:
                file.write(outcome.value)
            print(f"{name}: {number} of {len(pending)}", file=sys.stderr, flush=True)
    return broken


def sessions_of(path: Path | None) -> dict[str, str]:
    """Trajectory → its kind of shell session."""
    return {item.trajectory_id: item.session for item in read_records(path, Trajectory)} if path else {}


def well_formed(completions: Sequence[str]) -> list[str]:
    """Those that hold an action."""
    return [text for text in completions if parse(text).command is not None]


def compared(step: Step, completions: Sequence[str], measures: Mapping[str, tuple[float, ...]]) -> StepRewards:
    """All rewards of the well-formed among `completions`, beside what the measures say of them."""
    texts = well_formed(completions)
    values = {name: tuple(reward(text, step.command).value for text in texts) for name, reward in VARIANTS.items()}
    return StepRewards(
        step_id=step.step_id,
        task_id=step.task_id,
        tool=step.command.tool,
        verb=verb(step.command),
        values={**measures, **values},
        num_malformed=len(completions) - len(texts),
    )


def verb(command: Command) -> str:
    """What an action does, in one word."""
    line = command.arguments.get("command", "")
    return verb_of(line) if command.tool == "bash" else line


def about(rows: Sequence[StepRewards], measure: str, num_steps: int) -> str:
    """What the table is made of."""
    rows = [row for row in rows if measure in row.values]
    without = agreement(rows, next(iter(VARIANTS)), measure).num_without_order
    return (
        f"{measure}: {len(rows)} of {num_steps} steps of {len({row.task_id for row in rows})} tasks; "
        f"{sum(len(row.values[measure]) for row in rows)} well-formed rollouts, {sum(row.num_malformed for row in rows)} malformed ones in no pair; "
        f"{without} pairs left out, between which it sees no difference"
    )


def lines(rows: Sequence[StepRewards], measure: str) -> list[str]:
    """The table, in Markdown, and which of the expert's actions have no pair."""
    found = [(words, pairs, pairs.num_same + pairs.num_tied + pairs.num_reversed) for words, pairs in agreements(rows, measure)]  # fmt: skip
    head = [
        "| expert's action | reward | steps | pairs | same order | tied | reversed | tau [95 %] |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    without = ", ".join(dict.fromkeys(words for words, _, number in found if not number))
    tail = ["", f"Without such a pair: {without}."] if without else []
    return head + [line(words, pairs, number) for words, pairs, number in found if number] + tail


def line(words: str, pairs: Pairs, number: int) -> str:
    """One row; shares of the `number` of pairs."""
    shares = " | ".join(f"{count / number:.0%}" for count in (pairs.num_same, pairs.num_tied, pairs.num_reversed))
    tau = f"{pairs.tau.value:+.2f} [{pairs.tau.low:+.2f}, {pairs.tau.high:+.2f}]"
    return f"| {words} | {pairs.reward} | {pairs.num_steps} | {number} | {shares} | {tau} |"


if __name__ == "__main__":
    try:
        main()
    except SweSrlError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
