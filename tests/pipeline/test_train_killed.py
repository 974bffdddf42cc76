"""`swe-srl train` as a process of its own, killed with -9 at five random moments and called again each time."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")

from swe_srl.policy.load import last_checkpoint
from swe_srl.schema import Command, Fidelity, Step
from swe_srl.store import Appender
from swe_srl.testing.tiny import tiny_student

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

NUM_KILLS = 5
COMMON = """
dtype = "fp32"
device = "cpu"
max_prompt_tokens = 512
max_new_tokens = 64
"""
SFT = (
    COMMON
    + """
updates = 120
save_every = 120
[algorithm]
type = "sft"
batch_size = 8
[optimizer]
lr = 5e-3
"""
)
SRL = COMMON + """
updates = 24
save_every = 2
[algorithm]
type = "srl"
batch_size = 3
group_size = 4
temperature = 1.3
min_reward_std = 0.0
[optimizer]
lr = 1e-4
"""  # fmt: skip


def test_a_run_killed_five_times_ends_with_the_weights_of_one_that_was_not_bit_for_bit(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    assert exit_code(start(tmp_path, "sft", "tiny")) == 0
    assert exit_code(start(tmp_path, "srl", "sft", out="whole")) == 0

    rng = random.Random()
    for _ in range(NUM_KILLS):
        before = last_checkpoint(tmp_path / "killed")
        process = start(tmp_path, "srl", "sft", out="killed")
        while last_checkpoint(tmp_path / "killed") == before and process.is_alive():
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.4))
        assert process.is_alive(), "it ended before it could be killed: give it more updates"
        process.kill()
        assert exit_code(process) == -signal.SIGKILL
    assert exit_code(start(tmp_path, "srl", "sft", out="killed")) == 0

    ours, theirs = (final_weights(tmp_path / run) for run in ("whole", "killed"))
    assert ours == theirs
    assert ours != final_weights(tmp_path / "sft")
    assert what_was_learned(tmp_path / "whole") == what_was_learned(tmp_path / "killed")


def test_a_run_of_two_processes_that_was_killed_ends_with_the_weights_of_one_that_was_not_bit_for_bit(
    tmp_path: Path,
) -> None:
    write_inputs(tmp_path)
    (tmp_path / "two.toml").write_text(SFT.replace("120", "6") + "\n[lora]\nrank = 4\n" * bool(find_spec("peft")))
    settings = ["--set", "save_every=2"]
    assert start_two(tmp_path, "two", "tiny", *settings, out="whole").wait() == 0

    process = start_two(tmp_path, "two", "tiny", *settings, out="killed")
    while last_checkpoint(tmp_path / "killed") is None:
        assert process.poll() is None, (tmp_path / "killed.log").read_text()
        time.sleep(0.05)
    for worker in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    assert process.wait() != 0
    assert len(what_was_learned(tmp_path / "killed")) < 6, "it ended before it could be killed: give it more updates"
    assert start_two(tmp_path, "two", "tiny", *settings, out="killed").wait() == 0

    assert final_weights(tmp_path / "whole") == final_weights(tmp_path / "killed")
    assert what_was_learned(tmp_path / "whole") == what_was_learned(tmp_path / "killed")
    said = (tmp_path / "whole.log").read_text()
    assert said.count("done: ") == 1, "only the first process speaks"


def write_inputs(path: Path) -> None:
    """A student, a task, and the steps of two trajectories."""
    tiny_student(path / "tiny", width=64)
    row = {"instance_id": "toy-1", "repo": "toy", "base_commit": "0", "problem_statement": "f(1) is 3", "image": "toy"}
    (path / "tasks.jsonl").write_text(json.dumps(row) + "\n")
    with Appender(path / "steps.jsonl") as file:
        for name in "ab":
            for index in range(4):
                command = Command(tool="bash", arguments={"command": f"cat {name}/file_{index}.py"})
                file.write(
                    Step(
                        step_id=f"{name}/{index}", trajectory_id=name, task_id="toy-1", index=index, thought=f"thought {index}",
                        command=command, observation=f"content {index}", exit_code=0,
                        fidelity=Fidelity(exit_code=True, output=1.0, tree=None, status="faithful"),
                    )
                )  # fmt: skip
    (path / "sft.toml").write_text(SFT)
    (path / "srl.toml").write_text(SRL)


def words_of(config: str, model: str, *more: str, out: str) -> list[str]:
    """The command line."""
    return [
        "train",
        f"{config}.toml",
        "--steps",
        "steps.jsonl",
        "--tasks",
        "tasks.jsonl",
        "--model",
        model,
        *more,
        "--out",
        out,
    ]


def start(path: Path, config: str, model: str, out: str = "") -> BaseProcess:
    """`swe-srl train` as a process of its own, forked off one that has imported torch, which takes ten seconds each time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["swe_srl.policy.local", "swe_srl.training.loop"])
    process = context.Process(target=train, args=(path, words_of(config, model, out=out or config), out or config))
    process.start()
    return process


def train(path: Path, words: list[str], log: str) -> None:
    """What that process does."""
    from swe_srl.cli import main

    os.chdir(path)
    with (path / f"{log}.log").open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    main(words)


def exit_code(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode


def start_two(path: Path, config: str, model: str, *more: str, out: str) -> subprocess.Popen[bytes]:
    """The same by torchrun, as two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    with (path / f"{out}.log").open("ab") as log:
        words = words_of(config, model, *more, out=out)
        return subprocess.Popen([*torchrun, "swe_srl.cli", *words], cwd=path, stdout=log, stderr=log)


def final_weights(run: Path) -> bytes:
    """The last checkpoint's tensors."""
    path = last_checkpoint(run)
    assert path is not None
    return (path / "model.safetensors").read_bytes()


def what_was_learned(run: Path) -> list[dict[str, object]]:
    """The metrics without their durations."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith("_s")} for row in rows]
