"""RLVR after SRL and from the base model, with one budget of episodes: how many of the training tasks each resolves before and after.

    scripts/demo.sh --out demo
    python scripts/bench/rlvr.py demo --student demo/sft+srl --out rlvr [--updates 4] [--episodes 6] [--set …]

Before and after its training each student works `--episodes` times on every task, at the temperature it is trained with. A run
that ends since no task has episodes that differ is a result, and said. Call it again to go on. Intervals are 95 % bootstraps
over tasks; settings given with --set are those of `swe-srl train rlvr-cpu`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_srl.benchmarks.load import load_tasks
from swe_srl.policy.load import load_student
from swe_srl.schema import Task
from swe_srl.settings import apply_overrides, build, read_toml
from swe_srl.statistics import bootstrap_mean, paired_difference
from swe_srl.store import Run, read_records
from swe_srl.training.attempts import Arena, attempt_all, num_sampled_tokens
from swe_srl.training.config import RlvrConfig, TrainConfig
from swe_srl.training.inputs import make_arena
from swe_srl.training.metrics import METRICS, PROBE, Probed, UpdateMetrics, read_stalled

PRESET = "rlvr-cpu"


def main() -> None:
    """Measure, train, measure; twice."""
    options = arguments()
    tasks = options.demo / "tasks-train"
    settings = ("--set", f"updates={options.updates}", *(word for item in options.set for word in ("--set", item)))
    budget = 0
    for arm, student in (("after SRL", options.student), ("from base", options.base)):
        out = options.out / arm.replace(" ", "-")
        before = measure(student, tasks, out / "before", options)
        print(line(f"{arm}, start", before), flush=True)
        rounds = ("--set", f"algorithm.max_rounds={rounds_for(budget, settings)}") if budget else ()
        said = train(student, tasks, out / "run", (*settings, *rounds))
        if said:
            print(f"{arm}: no update: {said}", flush=True)
            continue
        updates = list(read_records(out / "run" / METRICS, UpdateMetrics))
        budget = budget or sum(int(str(row.collected["episodes"])) for row in updates)
        for row in updates:
            print(f"{arm}: {about(row)}", flush=True)
        after = measure(str(out / "run"), tasks, out / "after", options)
        print(line(f"{arm}, end", after, before), flush=True)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--student", required=True, help="run or directory of a student after SRL")
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=6, help="on each task, before and after")
    parser.add_argument("--set", action="append", default=[], help="a setting of the training, as a.b=c")
    return parser.parse_args()


def config_of(settings: Sequence[str]) -> TrainConfig:
    """The settings of the training."""
    table = apply_overrides(read_toml(PRESET), [item for item in settings if item != "--set"])
    return build(TrainConfig, table, origin=PRESET)


def rounds_for(budget: int, settings: Sequence[str]) -> int:
    """Rounds of one update that take about `budget` episodes."""
    algorithm = config_of(settings).algorithm
    assert isinstance(algorithm, RlvrConfig)
    return max(1, round(budget / (algorithm.batch_size * algorithm.group_size)))


def measure(model: str, source: Path, out: Path, options: argparse.Namespace) -> dict[str, Probed]:
    """How often `model` resolves each task; rows are kept, so that nothing is measured twice."""
    config = config_of(options.set)
    algorithm = config.algorithm
    assert isinstance(algorithm, RlvrConfig)
    tasks = load_tasks(source)
    run = Run(out)
    found = {row.task_id: row for row in run.read(PROBE, Probed)}
    pending = [task for task in tasks if task.task_id not in found]
    if not pending:
        return found
    arena = make_arena(config.model_copy(update={"tasks": str(source)}))
    assert arena is not None
    policy = load_student(model, dtype=config.dtype, device=config.device, max_prompt_tokens=config.max_prompt_tokens)
    size = max(1, algorithm.max_parallel // options.episodes)
    with run.append(PROBE, Probed) as file:
        for start in range(0, len(pending), size):
            for row in attempt(pending[start : start + size], policy, config, algorithm, arena, options.episodes):
                file.write(row)
                found[row.task_id] = row
    return found


def attempt(
    tasks: Sequence[Task], policy: Any, config: TrainConfig, algorithm: RlvrConfig, arena: Arena, episodes: int
) -> list[Probed]:
    """The episodes of some tasks, counted."""
    name = f"measure.{tasks[0].task_id}"
    return [
        Probed(
            task_id=task.task_id, num_episodes=len(done.attempts), num_resolved=round(sum(done.rewards)),
            num_tokens=num_sampled_tokens([done]),
        )
        for task, done in zip(tasks, attempt_all(tasks, episodes, policy, config, algorithm, arena, name=name), strict=True)
    ]  # fmt: skip


def train(model: str, tasks: Path, out: Path, settings: Sequence[str]) -> str:
    """One `swe-srl train`; what it said where no group had anything to learn from, else nothing."""
    command = [sys.executable, "-m", "swe_srl.cli", "train", PRESET, "--model", model, "--tasks", str(tasks), "--out", str(out)]  # fmt: skip
    done = subprocess.run([*command, *settings], check=False, stderr=subprocess.PIPE, text=True)
    stalled = read_stalled(out)
    if stalled is not None:
        return f"{stalled.reason} ({stalled.num_sampled_tokens} tokens sampled)"
    if done.returncode:
        sys.exit(done.stderr)
    return ""


def about(row: UpdateMetrics) -> str:
    """One update in words."""
    found = row.collected
    return (
        f"update {row.update}: {found['episodes']} episodes, {found['episodes_dropped']} dropped, reward {found.get('reward_mean', 0.0):.3f}, "
        f"{found['groups_kept']} tasks kept, thrown away {found['groups_thrown']}, {row.num_tokens} tokens where plain sequences take "
        f"{row.num_plain_tokens}; {row.collect_s:.0f} s of episodes, {row.train_s:.0f} s of training"
    )


def line(name: str, rows: Mapping[str, Probed], before: Mapping[str, Probed] | None = None) -> str:
    """The mean rate over tasks with its interval, and the paired difference to `before`."""
    rates = rates_of(rows)
    mean = bootstrap_mean(list(rates.values()))
    resolved, tried = sum(row.num_resolved for row in rows.values()), sum(row.num_episodes for row in rows.values())
    text = f"{name}: {resolved} of {tried} episodes resolved, {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}] over {mean.n} tasks, {sum(row.is_solvable for row in rows.values())} now and then"
    if before is None:
        return text
    gain = paired_difference(rates_of(before), rates)
    return f"{text}; {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def rates_of(rows: Mapping[str, Probed]) -> dict[str, float]:
    """Share of each task's episodes that resolve it."""
    return {
        task: statistics.fmean([1.0] * row.num_resolved + [0.0] * (row.num_episodes - row.num_resolved))
        for task, row in rows.items()
        if row.num_episodes
    }


if __name__ == "__main__":
    main()
