"""The verbs teach, replay and import: wrong input is one sentence and exit code 2."""

import json

import pytest
from typer.testing import CliRunner

from swe_srl.cli import app
from swe_srl.errors import ConfigError, UserError
from swe_srl.schema import Trajectory
from swe_srl.store import read_records


def call(*arguments):
    return CliRunner().invoke(app, [str(item) for item in arguments])


MINI = {
    "trajectory_format": "mini-swe-agent-1.1",
    "instance_id": "demo__demo-1",
    "info": {
        "exit_status": "Submitted",
        "submission": "diff --git a/x b/x\n",
        "config": {"model": {"model_name": "m"}},
    },
    "messages": [
        {"role": "assistant", "content": "look", "extra": {"actions": [{"command": "ls"}]}},
        {"role": "tool", "content": "", "extra": {"raw_output": "x\n", "returncode": 0, "exception_info": ""}},
    ],
}


def test_import_writes_our_format_and_says_what_was_left_out(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.traj.json").write_text(json.dumps(MINI))
    (tmp_path / "in" / "b.traj.json").write_text("{")
    result = call("import", tmp_path / "in", "--out", tmp_path / "t.jsonl")
    assert result.exit_code == 0, result.output
    assert "b.traj.json: not JSON" in result.output
    [found] = read_records(tmp_path / "t.jsonl", Trajectory)
    assert (found.task_id, found.turns[0].observation) == ("demo__demo-1", "x\n")


def test_import_of_nothing_writes_nothing(tmp_path):
    (tmp_path / "b.traj.json").write_text("{")
    result = call("import", tmp_path, "--out", tmp_path / "t.jsonl")
    assert isinstance(result.exception, UserError)
    assert [path.name for path in tmp_path.iterdir()] == ["b.traj.json"]


def test_a_budget_in_money_needs_prices(tmp_path):
    result = call("teach", "--tasks", tmp_path, "--model", "oracle", "--budget-usd", "1", "--out", tmp_path / "o")
    assert isinstance(result.exception, ConfigError)
    assert "--price-in" in str(result.exception)


def test_a_teacher_without_a_key_is_refused_before_anything_begins(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    result = call("teach", "--tasks", tmp_path, "--model", "gpt", "--out", tmp_path / "o")
    assert isinstance(result.exception, ConfigError)
    assert "$OPENAI_API_KEY" in str(result.exception)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("setting", ["limits.max_turns=0", "nonsense=1", "sampling.temperature=hot"])
def test_a_wrong_setting_is_named(tmp_path, setting):
    result = call("teach", "--tasks", tmp_path, "--model", "oracle", "--set", setting, "--out", tmp_path / "o")
    assert isinstance(result.exception, ConfigError)
    assert setting.partition("=")[0] in str(result.exception)


def test_replay_of_a_file_without_trajectories_is_the_users_mistake(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"kind": "Trajectory"}\n')
    result = call("replay", tmp_path / "t.jsonl", "--tasks", tmp_path, "--out", tmp_path / "o")
    assert isinstance(result.exception, UserError)
    assert "no trajectory" in str(result.exception)
