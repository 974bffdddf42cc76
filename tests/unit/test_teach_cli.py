"""The verbs teach, replay and import: wrong input is one sentence and exit code 2."""

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swe_srl.cli import app
from swe_srl.cli.teach_tables import tell_summary
from swe_srl.dialogue import ContextConfig, render
from swe_srl.errors import ConfigError, UserError
from swe_srl.policy.chat import estimate_tokens
from swe_srl.policy.prices import Price, price_of
from swe_srl.schema import Task, Trajectory, Usage
from swe_srl.store import Run, read_records
from swe_srl.teaching.budget import BudgetConfig
from swe_srl.teaching.estimate import estimate
from swe_srl.teaching.summary import TeachSummary
from swe_srl.teaching.teach import TeachConfig, pending
from swe_srl.testing import completion


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


@pytest.mark.parametrize("cap", ["--budget-usd", "--task-budget-usd"])
def test_a_cap_in_money_on_a_model_without_a_price_is_refused(tmp_path, cap):
    result = call("teach", "--tasks", tmp_path, "--model", "nobodys", cap, "1", "--out", tmp_path / "o")
    assert isinstance(result.exception, ConfigError)
    assert "no price is known of 'nobodys'" in str(result.exception)
    assert "--price-in" in str(result.exception)


def settings_of(tmp_path, monkeypatch, *arguments):
    """The settings that `teach` was called with, and how the endpoint is asked."""
    seen = []
    monkeypatch.setattr(
        "swe_srl.cli.teach._teach", lambda chosen, config, endpoint, *rest: seen.extend([config, endpoint])
    )
    monkeypatch.setattr("swe_srl.cli.teach.tell_summary", lambda *rest: None)
    (tmp_path / "t.jsonl").write_text(json.dumps(ROW) + "\n")
    result = call(
        "teach", "--tasks", tmp_path / "t.jsonl", "--out", tmp_path / "o", "--base-url", "http://x/v1", *arguments
    )
    assert result.exit_code == 0, result.exception
    return seen


ROW = {"instance_id": "toy-1", "repo": "toy", "base_commit": "0", "problem_statement": "f(1) is 3", "image": "toy"}


def test_a_known_models_price_is_found_and_a_given_one_goes_first(tmp_path, monkeypatch):
    config, _ = settings_of(tmp_path, monkeypatch, "--model", "gpt-5.4", "--budget-usd", "1")
    assert config.budget.price == price_of("gpt-5.4")
    config, _ = settings_of(tmp_path, monkeypatch, "--model", "gpt-5.4", "--price-in", "1", "--price-out", "2")
    assert config.budget.price == Price(input=1, output=2)
    (tmp_path / "p.json").write_text('{"models": {"mine": {"input": 3, "cached_input": 1, "output": 4}}}')
    config, _ = settings_of(tmp_path, monkeypatch, "--model", "mine", "--prices", tmp_path / "p.json")
    assert config.budget.price == Price(input=3, cached_input=1, output=4)


def test_how_the_endpoint_is_asked_can_be_set(tmp_path, monkeypatch):
    _, endpoint = settings_of(
        tmp_path, monkeypatch, "--model", "m", "--max-parallel", "3", "--requests-per-minute", "30",
        "--set", "endpoint.timeout_s=900", "--set", "endpoint.extra_body.top_k=20",
    )  # fmt: skip
    assert (endpoint["max_parallel"], endpoint["requests_per_minute"], endpoint["timeout_s"]) == (3, 30, 900)
    assert endpoint["extra_body"] == {"top_k": 20}


def test_a_dry_run_makes_no_call_needs_no_key_and_counts_what_is_left(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(ROW | {"instance_id": f"toy-{i}"}) + "\n" for i in range(3)))
    arguments = [
        "teach",
        "--tasks",
        tmp_path / "t.jsonl",
        "--model",
        "gpt-5",
        "--samples",
        "4",
        "--out",
        tmp_path / "o",
        "--dry-run",
    ]
    result = call(*arguments)
    assert result.exit_code == 0, result.exception
    assert re.search(r"trajectories +│ 12 ", result.output)
    assert not (tmp_path / "o").exists()
    with Run(tmp_path / "o").append("trajectories.jsonl", Trajectory) as file:
        file.write(
            Trajectory(
                trajectory_id="toy-1.0",
                task_id="toy-1",
                model="gpt-5",
                source="swe-srl",
                turns=(),
                exit_status="submitted",
            )
        )
    assert re.search(r"trajectories +│ 11 ", call(*arguments).output)
    assert re.search(r"trajectories +│ 8 .*\n.*expected +│ 3\.8 ", call(*arguments, "--until-accepted").output)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (["--model", "oracle"], "none, it runs here"),
        (["--model", "smollm2-135m"], "none, it runs here"),
        (["--model", "oracle", "--base-url", "http://x/v1"], "no price is known"),
        (["--model", "nobodys"], "no price is known"),
    ],
)
def test_a_dry_run_tells_a_teacher_that_costs_nothing_from_one_without_a_price(tmp_path, monkeypatch, where, words):
    """The built-in teacher, which is free, was shown as one whose price nobody knows."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    (tmp_path / "t.jsonl").write_text(json.dumps(ROW) + "\n")
    result = call("teach", "--tasks", tmp_path / "t.jsonl", "--out", tmp_path / "o", "--dry-run", *where)
    assert re.search(rf"expected: USD +│ {words}", result.output), result.output


@pytest.mark.parametrize(
    ("accepted", "rejected", "words", "not_words"),
    [(1, 1, "next: swe-srl replay", "none is accepted"), (0, 2, "rejected.jsonl has each", "next:"), (0, 0, "0 calls", "next:")],
)  # fmt: skip
def test_what_comes_next_is_told_where_there_is_something_to_go_on_with(
    capsys, tmp_path, accepted, rejected, words, not_words
):
    """A run whose only trajectory was rejected said to replay a file that held none, and the replay ended with exit code 2."""
    summary = TeachSummary(
        exit_status="finished", num_tasks=2, num_wanted=2, num_accepted=accepted, num_rejected=rejected, num_not_needed=0,
        num_infra_failures=0, num_not_begun_or_stopped=0, rejected_because={}, num_steps=0, num_steps_faithful=0,
        faithful_share=None, calls={}, usage=Usage(),
    )  # fmt: skip
    tell_summary(summary, tmp_path, tmp_path)
    said = capsys.readouterr()
    assert words in said.out + said.err
    assert not_words not in said.out + said.err


def test_the_worst_case_is_above_what_is_expected_and_grows_with_what_is_allowed(tmp_path):
    task = Task(task_id="a", repo="toy", base_commit="0", problem_statement="mend it " * 50, image="toy")
    price = BudgetConfig(price=Price(input=1.0, cache_write=1.25, output=4.0))

    def found(**more):
        config = TeachConfig(budget=price, **more)
        return estimate(pending([task], config, None), config)

    usual = found()
    assert 0 < usual.expected.cost_usd < usual.worst.cost_usd
    prompts = usual.worst.prompt_tokens
    assert usual.worst.cost_usd == pytest.approx((prompts * 1.25 + 30 * 2048 * 4) / 1e6)  # 30 turns at the most
    assert usual.first_prompts == (estimate_tokens(render(task, (), ContextConfig(window="all"))),)
    assert found(samples=3).worst.cost_usd == pytest.approx(3 * usual.worst.cost_usd)
    assert found(context=ContextConfig(window=2)).worst.prompt_tokens < prompts / 4


CALLED = """
import sys
sys.path.insert(0, {tests!r})
import test_teaching as fakes
import swe_srl.agent, swe_srl.grading.grader
from types import SimpleNamespace
from swe_srl.cli import main
swe_srl.agent.open_task_box = lambda task, config, purpose: fakes.open_box(task)
swe_srl.grading.grader.Grader = lambda *rest: SimpleNamespace(grade=lambda item: SimpleNamespace(verdict=fakes.grade(item)))
main(sys.argv[1:])
"""
SUBMIT = completion(tool="submit")
KEY = "sk-proj-4nOnSeNsE/+key"


@contextmanager
def telltale(refuses):
    """An endpoint that repeats the Authorization header in everything it says; yields its URL and what was asked of it."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(body)
            said = f"you sent {self.headers['Authorization']}"
            done = sum(item["role"] == "assistant" for item in body["messages"])
            action = [completion("ls", thought=said), completion("fix", thought=said), SUBMIT][done]
            status, value = (
                200,
                {
                    "choices": [
                        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": action}}
                    ]
                },
            )
            if refuses:
                status, value = refuses, {"error": {"message": said, "code": said}}
            elif len(requests) == 1:
                status, value = 500, {"error": {"message": said}}
            elif len(requests) == 2:
                status, value = 200, {"error": said}
            elif len(requests) == 3:
                status, value = 400, {"error": {"message": f"temperature is not supported, {said}"}}
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", requests
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@pytest.mark.parametrize(("refuses", "code"), [(0, 0), (401, 3), (429, 3)])
def test_a_key_that_the_endpoint_repeats_is_in_no_file_and_on_no_screen(tmp_path, refuses, code):
    (tmp_path / "t.jsonl").write_text(json.dumps(ROW) + "\n")
    out = tmp_path / "o"
    with telltale(refuses) as (url, requests):
        done = subprocess.run(
            [
                sys.executable, "-c", CALLED.format(tests=str(Path(__file__).parent)), "teach", "--tasks", str(tmp_path / "t.jsonl"),
                "--model", "m", "--base-url", url, "--out", str(out), "--set", "endpoint.max_wait_s=0.01",
                "--set", "endpoint.max_retries=2",
            ],
            env=os.environ | {"OPENAI_API_KEY": KEY, "OPENAI_LOG": "debug"}, capture_output=True, check=False,
        )  # fmt: skip
    assert done.returncode == code, done.stderr.decode()
    assert len(requests) == {0: 6, 401: 1, 429: 3}[refuses]
    written = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert b"[redacted]" in written["calls.jsonl"]
    assert b"[redacted]" in (written["trajectories.jsonl"] if code == 0 else done.stderr)
    for name, content in {"stdout": done.stdout, "stderr": done.stderr, **written}.items():
        assert b"4nOnSeNsE" not in content, name


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
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    given = ("--tasks", tmp_path / "rows.jsonl", "--no-grade", "--out", tmp_path / "o")
    result = call("replay", tmp_path / "t.jsonl", *given)
    assert isinstance(result.exception, UserError)
    assert "no trajectory" in str(result.exception)
