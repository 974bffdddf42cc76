"""A task and the steps of its trajectories, as `swe-srl train` reads them; no engine and no torch."""

from __future__ import annotations

import json
from pathlib import Path

from swe_srl.schema import Command, Fidelity, Step
from swe_srl.store import Appender

ROW = {"instance_id": "toy-1", "repo": "toy", "base_commit": "0", "problem_statement": "f(1) is 3", "image": "toy"}


def step(index: int, trajectory: str) -> Step:
    return Step(
        step_id=f"{trajectory}/{index}", trajectory_id=trajectory, task_id="toy-1", index=index, thought="thought",
        command=Command(tool="bash", arguments={"command": f"cat file_{index}.py"}), observation="content", exit_code=0,
        fidelity=Fidelity(exit_code=True, output=1.0, tree=None, status="faithful"),
    )  # fmt: skip


def write_toy(path: Path, num_steps: int) -> None:
    """`tasks.jsonl`, and `steps.jsonl` with two trajectories of so many steps."""
    (path / "tasks.jsonl").write_text(json.dumps(ROW) + "\n")
    with Appender(path / "steps.jsonl") as file:
        file.write(*(step(index, name) for name in "ab" for index in range(num_steps)))
