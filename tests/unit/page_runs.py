"""Run directories as the verbs write them, small or large, for the tests of the report page."""

import json
import random
from pathlib import Path

from swe_srl.dialogue import format_completion
from swe_srl.evaluation.steps import measure_step
from swe_srl.policy.base import Completion
from swe_srl.replay.replay import Replayed
from swe_srl.rewards.similarity import SimilarityConfig
from swe_srl.schema import (
    Command,
    Fidelity,
    Prediction,
    Record,
    Step,
    StepAgreement,
    Trajectory,
    Turn,
    Usage,
    Verdict,
)
from swe_srl.store import Appender, write_json

STATUSES = ("resolved", "unresolved", "empty_patch", "patch_failed", "unresolved", "tampered", "infra_failure")
PROJECTS = ("django__django", "sympy__sympy", "psf__requests", "pallets__flask")
PATCH = "--- a/core.py\n+++ b/core.py\n@@ -1,2 +1,2 @@\n def f():\n-    return 1\n+    return 2\n"


def task_ids(number: int) -> list[str]:
    return [f"{PROJECTS[index % len(PROJECTS)]}-{1000 + index}" for index in range(number)]


def write(path: Path, name: str, records: list[Record]) -> None:
    with Appender[Record](path / name, sync=False) as file:
        file.write(*records)


def teacher_command(index: int) -> Command:
    if index % 3 == 2:
        edit = {
            "command": "str_replace",
            "path": f"/testbed/core_{index}.py",
            "old_str": "return 1",
            "new_str": "return 2",
        }
        return Command(tool="str_replace_editor", arguments=edit)
    return Command(
        tool="bash", arguments={"command": f"grep -rn 'def handle_{index}' --include=*.py src | head -{index + 5}"}
    )


def told(output: str | list[str], key: str) -> str:
    """What a box said: always the same, or thirty lines drawn from many."""
    return output if isinstance(output, str) else "\n".join(random.Random(key).choices(output, k=30))


def make_steps(task_id: str, number: int, output: str | list[str]) -> list[Step]:
    drifted = Fidelity(exit_code=True, output=0.83, tree=True, status="drifted", why="the output differs")
    same = Fidelity(exit_code=True, output=1.0, tree=True, status="faithful")
    return [
        Step(
            step_id=f"{task_id}.0/{index}", trajectory_id=f"{task_id}.0", task_id=task_id, index=index, exit_code=0,
            thought=f"I look at part {index} of {task_id}.", command=teacher_command(index),
            observation=f"{index}: {told(output, f'{task_id}/{index}')}", fidelity=drifted if index == 3 else same,
        )
        for index in range(number)
    ]  # fmt: skip


def student_text(step: Step, sample: int) -> str:
    if sample == 1 and step.index % 2:
        return "I would rather explain what I would do."
    given = dict(step.command.arguments)
    key = "command" if step.command.tool == "bash" else "new_str"
    given[key] = given[key].replace("handle", "handler").replace("return 2", "return 1 + 1") if sample else given[key]
    return format_completion(f"sample {sample}", Command(tool=step.command.tool, arguments=given))


def replay_run(path: Path, steps: dict[str, list[Step]]) -> Path:
    trajectories, records = [], []
    for task_id, found in steps.items():
        turns = tuple(
            Turn(thought=s.thought, command=s.command, observation="what was seen then", exit_code=0) for s in found
        )
        name = f"{task_id}.0"
        trajectories.append(
            Trajectory(
                trajectory_id=name,
                task_id=task_id,
                model="oracle",
                source="swe-srl",
                turns=turns,
                exit_status="submitted",
            )
        )
        statuses = {"faithful": len(found) - (len(found) > 3), "drifted": int(len(found) > 3)}
        records.append(
            Replayed(
                trajectory_id=name, task_id=task_id, num_turns=len(found), num_steps=len(found), num_replayed=len(found),
                num_same_exit=len(found), num_identical=statuses["faithful"], statuses=statuses,
                reasons={"the output differs": 1} if len(found) > 3 else {}, same_patch=True, resolved=True,
            )
        )  # fmt: skip
    write(path, "steps.jsonl", [step for found in steps.values() for step in found])
    write(path, "trajectories.jsonl", trajectories)
    write(path, "replayed.jsonl", records)
    return path


def model_run(
    path: Path,
    model: str,
    steps: dict[str, list[Step]],
    *,
    turns: int,
    samples: int,
    output: str | list[str],
    shift: int = 0,
) -> Path:
    predictions, verdicts, episodes, rows = [], [], [], []
    reward = SimilarityConfig().build()
    for number, (task_id, found) in enumerate(steps.items()):
        status = STATUSES[(number + shift) % len(STATUSES)]
        acted = [
            Turn(
                thought="let me see",
                command=teacher_command(index),
                observation=f"{index}: {told(output, f'{model}/{task_id}/{index}')}",
                exit_code=index % 2,
            )
            for index in range(turns - 1)
        ]
        acted.append(Turn(command=None, completion="no action here", observation="No action was found."))
        predictions.append(
            Prediction(
                task_id=task_id, model=model, patch=PATCH, exit_status="submitted", num_turns=turns, num_malformed=number % 3,
                usage=Usage(prompt_tokens=1000, completion_tokens=100, cost_usd=0.01), duration_s=3.0,
                infra_failure="the box is gone" if status == "infra_failure" else "",
            )
        )  # fmt: skip
        failing = tuple(f"tests/test_core.py::test_{number + more * 100}" for more in range(1 + number % 3))
        verdicts.append(
            Verdict(
                task_id=task_id, model=model, patch_digest="d", status=status, num_fail_to_pass=2, num_pass_to_pass=9,
                num_fail_to_pass_passed=2 if status == "resolved" else 1, num_pass_to_pass_passed=9,
                tests_failed=() if status == "resolved" else failing,
            )
        )  # fmt: skip
        episodes.append(
            Trajectory(
                trajectory_id=f"{task_id}.evaluation", task_id=task_id, model=model, source="swe-srl", turns=tuple(acted),
                exit_status="submitted", patch=PATCH,
            )
        )  # fmt: skip
        for step in found if samples else ():
            answers = [Completion(text=student_text(step, sample + shift), num_tokens=40) for sample in range(samples)]
            rows.append(measure_step(step, answers, reward, model))
    write(path, "predictions.jsonl", predictions)
    write(path, "verdicts.jsonl", verdicts)
    write(path, "episodes.jsonl", episodes)
    if rows:
        write(path, "step_agreement.jsonl", list[StepAgreement](rows))
    write_json(path / "grade.json", {"task_ids": list(steps), "submitted": [[task_id, model] for task_id in steps]})
    return path


def training_run(path: Path, updates: int, algorithm: str = "srl") -> Path:
    path.mkdir(parents=True)
    chance, lines = random.Random(0), []
    for update in range(1, updates + 1):
        collected = {
            "reward_mean": 0.2 + 0.5 * update / updates + chance.uniform(-0.05, 0.05), "reward_std": 0.2,
            "groups_kept": 8, "groups_thrown": {"rewards alike": update % 3}, "completion_tokens_mean": 60 + update % 7,
            "well_formed": 0.9, "commonest_action": 0.25, "rounds": 1,
        }  # fmt: skip
        lines.append(
            {
                "update": update, "num_updates": updates, "loss": 0.01, "lr": 1e-5, "grad_norm": 1.0, "entropy": 1.0 / update,
                "clip_share": 0.01, "kl": 0.0, "num_tokens": 1000, "num_answer_tokens": 500, "num_prompts_cut": 0, "cursor": update,
                "collected": collected, "collect_s": 1.0, "train_s": 2.0,
            }
        )  # fmt: skip
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json(path / "train.json", {"algorithm": {"type": algorithm}})
    return path


def teaching_run(path: Path, ids: list[str]) -> Path:
    """One accepted and one rejected trajectory, and what they cost."""
    turns = (Turn(command=teacher_command(0), observation="seen", exit_code=0),)
    made = [
        Trajectory(
            trajectory_id=f"{name}.9", task_id=name, model="gpt", source="swe-srl", turns=turns, exit_status="submitted"
        )
        for name in ids[:2]
    ]
    write(path, "trajectories.jsonl", made[:1])
    (path / "rejected.jsonl").write_text(
        json.dumps({"reason": "not resolved: unresolved", "trajectory": made[1].model_dump(mode="json")}) + "\n"
    )
    (path / "calls.jsonl").write_text("")
    usage = {"prompt_tokens": 12_000, "cached_tokens": 3000, "completion_tokens": 900, "cost_usd": 0.1234}
    write_json(path / "summary.json", {"num_wanted": 2, "calls": {"answered": 2}, "usage": usage})
    write_json(path / "teach.json", {"model": "gpt"})
    return path


def all_runs(
    root: Path, *, num_tasks: int = 8, num_steps: int = 5, samples: int = 2, output: str | list[str] = "ok"
) -> list[Path]:
    """Two models, their teacher's replay, a training run and a run of teaching."""
    steps = {task_id: make_steps(task_id, num_steps, output) for task_id in task_ids(num_tasks)}
    return [
        model_run(root / "base", "base", steps, turns=4, samples=samples, output=output, shift=1),
        model_run(root / "srl", "srl", steps, turns=4, samples=samples, output=output),
        replay_run(root / "replay", steps),
        training_run(root / "training" / "srl", 12),
        teaching_run(root / "teach", task_ids(num_tasks)),
    ]
