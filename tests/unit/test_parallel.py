"""Two processes share the weights and the work of a run: what they learn is what one learns alone, beyond rounding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")

from parallel_process import CASES, run_case, write_steps
from safetensors.torch import load_file

from swe_srl.testing.tiny import tiny_student
from swe_srl.training.metrics import read_metrics
from swe_srl.training.team import Team

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every case, trained by two processes."""
    path = tmp_path_factory.mktemp("parallel")
    tiny_student(path / "tiny")
    write_steps(path / "steps.jsonl")
    script = Path(__file__).with_name("parallel_process.py")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, path],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:6000]
    assert [(path / f"rank-{rank}").read_text() for rank in range(2)] == ["2", "2"]
    return path


def trainer(run, update):
    return torch.load(run / f"checkpoints/update-{update:06d}/trainer.pt", weights_only=True)


def assert_close(ours, theirs, rtol, what):
    assert (ours - theirs).norm() <= rtol * theirs.norm(), f"{what}: {(ours - theirs).norm() / theirs.norm()}"


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns(folder, case):
    if case == "lora":
        pytest.importorskip("peft", reason="needs the train extra")
    run_case(folder, case, f"{case}-1")
    one, two = folder / f"{case}-1", folder / f"{case}-2"
    near = 2e-2 if case == "bf16" else 1e-5
    for alone, together in zip(read_metrics(one), read_metrics(two), strict=True):
        assert together.loss == pytest.approx(alone.loss, rel=near, abs=1e-7)
        assert together.grad_norm == pytest.approx(alone.grad_norm, rel=near)
        same = ("num_tokens", "num_answer_tokens", "num_prompts_cut", "cursor", "collected")
        assert together.model_dump(include=set(same)) == alone.model_dump(include=set(same))
        assert alone.grad_norm > 0
    # After the first update AdamW's mean is 0.1 of the gradient.
    for number, state in trainer(one, 1)["optimizer"]["adam"]["state"].items():
        assert_close(trainer(two, 1)["optimizer"]["adam"]["state"][number]["exp_avg"], state["exp_avg"], near, number)
    assert {master.dtype for master in trainer(two, 1)["optimizer"]["masters"].values()} == {torch.float32}
    before = load_file(folder / "tiny/model.safetensors")
    for update in (2, 3):
        ours, theirs = (load_file(run / f"checkpoints/update-{update:06d}/model.safetensors") for run in (two, one))
        assert ours.keys() == theirs.keys() == before.keys()
        for name, weight in theirs.items():
            assert_close(ours[name], weight, near, name)
        moved = [name for name, weight in theirs.items() if not torch.equal(weight, before[name].to(weight.dtype))]
        assert len(moved) > len(before) // 2


def test_a_run_of_two_that_was_stopped_ends_with_the_weights_of_one_that_was_not_bit_for_bit(folder):
    rows = [read_metrics(folder / run) for run in ("srl-2", "srl-stopped")]
    assert [row.update for row in rows[1]] == [1, 2, 3]
    assert [row.loss for row in rows[0]] == [row.loss for row in rows[1]]
    whole, stopped = (
        (folder / run / "checkpoints/update-000003/model.safetensors").read_bytes() for run in ("srl-2", "srl-stopped")
    )
    assert whole == stopped


def test_what_two_began_one_can_finish(folder):
    run = folder / "sft-2"
    whole = load_file(run / "checkpoints/update-000003/model.safetensors")
    for file in (run / "checkpoints/update-000003").iterdir():
        file.unlink()
    (run / "checkpoints/update-000003").rmdir()
    alone = load_file(run_case(folder, "sft", "sft-2") / "model.safetensors")
    for name, weight in whole.items():
        assert_close(alone[name], weight, 1e-5, name)


def test_work_is_spread_so_that_equal_keys_stay_together_and_nothing_is_left_out():
    keys = ["b", "a", "b", "b", "c", "a", "d"]
    shares = [Team(rank, 3)._share(keys) for rank in range(3)]
    assert sorted(place for share in shares for place in share) == list(range(7))
    owners = {key: {rank for rank, share in enumerate(shares) for place in share if keys[place] == key} for key in keys}
    assert all(len(ranks) == 1 for ranks in owners.values())
    assert [len(share) for share in shares] == [2, 3, 2]
    assert [Team(rank, 4)._share(["x", "x"]) for rank in range(4)].count([]) == 3


def test_every_process_is_dealt_the_same_number_of_turns():
    assert [Team(rank, 2).deal("abc") for rank in range(2)] == [["a", "c"], ["b", None]]
    assert [Team(rank, 3).deal("a") for rank in range(3)] == [["a"], [None], [None]]
