"""`torchrun … parallel_process.py FOLDER`: every run of CASES as `FOLDER/<case>-2`, by however many processes there are.

The test beside it trains the same alone, by calling `run_case` itself.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

from swe_srl.rewards import SimilarityConfig
from swe_srl.schema import Command, Fidelity, Reward, Step, Task, Verdict
from swe_srl.store import Appender, Run
from swe_srl.testing import FakeSandbox
from swe_srl.training.attempts import Arena
from swe_srl.training.config import TrainConfig
from swe_srl.training.data import load_examples
from swe_srl.training.loop import train
from swe_srl.training.team import ALONE, Team, assembled

TASKS = tuple(
    Task(task_id=f"toy-{n}", repo="toy", base_commit="0", problem_statement=f"f({n}) is 3", image="toy")
    for n in range(4)
)
SRL = {"type": "srl", "batch_size": 3, "group_size": 3, "min_reward_std": 0.001, "objective": {"kl_weight": 0.1}}
RLVR = {"type": "rlvr", "batch_size": 3, "group_size": 4, "limits": {"max_turns": 2}, "max_parallel": 4}
CASES = {
    # Five micro-batches: of two processes one has nothing to do in the last round.
    "sft": {"algorithm": {"type": "sft", "batch_size": 5}, "micro_batch_tokens": 16},
    "bf16": {"algorithm": {"type": "sft", "batch_size": 5}, "micro_batch_tokens": 16, "dtype": "bf16"},
    "srl": {"algorithm": SRL, "activation_checkpointing": True, "micro_batch_tokens": 256},
    "rlvr": {"algorithm": RLVR, "max_new_tokens": 8, "max_prompt_tokens": 2000},
    "lora": {"algorithm": {"type": "sft", "batch_size": 5}, "micro_batch_tokens": 16, "lora": {"rank": 4, "alpha": 8.0}},
}  # fmt: skip
"""By name, what each run is told beside what all are."""


class Length:
    """A reward that a random student can earn, which never writes a well-formed answer."""

    def __call__(self, completion: str, expert: Command) -> Reward:
        return Reward(value=len(completion) / 100, parts={"well_formed": 1.0})


def write_steps(path: Path) -> None:
    """Two trajectories of four steps."""
    with Appender(path) as file:
        for index in range(8):
            file.write(
                Step(
                    step_id=f"{index // 4}/{index % 4}", trajectory_id=str(index // 4), task_id="toy-0", index=index % 4, thought=f"thought {index}",
                    command=Command(tool="bash", arguments={"command": f"cat file_{index}.py"}), observation=f"content {index}", exit_code=0,
                    fidelity=Fidelity(exit_code=True, output=1.0, tree=None, status="faithful"),
                )
            )  # fmt: skip


def judge(prediction: object) -> Verdict:
    """Of an episode what decides is how long its prompts were, so that it does not matter who asks first."""
    odd = prediction.usage.prompt_tokens % 2
    status = "resolved" if odd else "unresolved"
    return Verdict(task_id=prediction.task_id, model="m", patch_digest=prediction.patch_digest, status=status)


def run_case(folder: Path, case: str, out: str, team: Team = ALONE, stop_before: int = 0, **changes: object) -> Path:
    """Train; with `stop_before`, until that update begins."""
    table = {
        "model": str(folder / "tiny"), "tasks": "unused", "dtype": "fp32", "device": "cpu", "updates": 3, "save_every": 1, "keep_last": 9,
        "max_new_tokens": 24, "max_prompt_tokens": 512, "optimizer": {"lr": 1e-3, "max_grad_norm": 1e9},
    }  # fmt: skip
    settings = TrainConfig.model_validate(table | CASES[case] | changes)
    data = TASKS if case == "rlvr" else load_examples([folder / "steps.jsonl"], TASKS, ("faithful",)).examples

    def progress(done: int, of: int) -> None:
        if stop_before and done == stop_before - 1:
            raise KeyboardInterrupt

    with patch.object(SimilarityConfig, "build", lambda _self: Length()):
        return train(
            settings,
            data,
            Run(folder / out),
            arena=Arena(lambda _: FakeSandbox({}), judge),
            progress=progress,
            team=team,
        )


def main(folder: Path) -> None:
    """All cases, and one that is stopped and goes on."""
    with assembled("cpu") as team:
        for case in CASES:
            if case != "lora" or find_spec("peft"):
                run_case(folder, case, f"{case}-2", team)
        try:
            run_case(folder, "srl", "srl-stopped", team, stop_before=3, save_every=2)
        except KeyboardInterrupt:
            run_case(folder, "srl", "srl-stopped", team, save_every=2)
        (folder / f"rank-{team.rank}").write_text(str(team.size))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
