"""Teaching: nothing is paid twice, nothing beyond the budget, and only what resolves its task is accepted."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from swe_srl.errors import EndpointError, SandboxError, UserError
from swe_srl.policy.base import Sampling
from swe_srl.policy.endpoint import LostCall
from swe_srl.schema import Task, Trajectory, Verdict
from swe_srl.store import Run
from swe_srl.teaching.budget import Account, BudgetConfig, BudgetReached
from swe_srl.teaching.journal import CALLS, Call
from swe_srl.teaching.teach import REJECTED, SUMMARY, TRAJECTORIES, Rejection, TeachConfig, teach
from swe_srl.testing import FakeSandbox, ScriptedPolicy, completion

SUBMIT = completion(tool="submit")


def tasks(names):
    return [
        Task(task_id=name, repo="toy", base_commit="0" * 40, problem_statement=f"mend {name}", image="toy:1")
        for name in names
    ]


def edit(box):
    box.write_file("a.py", b"x = 2\n")
    return ""


def open_box(task):
    return FakeSandbox({"a.py": "x = 1\n"}, {"fix": edit, "ls": ""})


def fixes(prompt, sampling):
    done = sum(message["role"] == "assistant" for message in prompt)
    return [completion("ls"), completion("fix"), SUBMIT][done]


def grade(prediction):
    good = "+x = 2" in prediction.patch
    return Verdict(
        task_id=prediction.task_id, model=prediction.model, patch_digest=prediction.patch_digest,
        status="resolved" if good else "unresolved", tests_failed=() if good else ("t::one",),
    )  # fmt: skip


def lesson(out, policy, names="ab", config=None, **more):
    settings = {"open_box": open_box, "grade": grade} | more
    return teach(tasks(names), config or TeachConfig(workers=1), Run(out), policy=policy, **settings)


def test_a_trajectory_that_resolves_its_task_is_accepted_with_everything_that_was_seen(tmp_path):
    summary = lesson(tmp_path, ScriptedPolicy(fixes))
    found = Run(tmp_path).read(TRAJECTORIES, Trajectory)
    assert [item.trajectory_id for item in found] == ["a.0", "b.0"]
    assert all(item.resolved and item.exit_status == "submitted" and "+x = 2" in item.patch for item in found)
    assert [turn.command.arguments.get("command") for turn in found[0].turns] == ["ls", "fix", None]
    assert found[0].turns[0].tree
    assert found[0].turns[0].tree != found[0].turns[1].tree
    assert (summary.num_accepted, summary.num_rejected, summary.exit_status) == (2, 0, "finished")
    assert json.loads((tmp_path / SUMMARY).read_text())["num_accepted"] == 2


def test_what_does_not_resolve_or_was_not_submitted_is_rejected_with_its_reason(tmp_path):
    def answer(prompt, sampling):
        return SUBMIT if prompt[1]["content"] == "mend a" else "nonsense"

    summary = lesson(tmp_path, ScriptedPolicy(answer))
    reasons = {item.trajectory.task_id: item.reason for item in Run(tmp_path).read(REJECTED, Rejection)}
    assert reasons == {"a": "not resolved: unresolved: t::one", "b": "not submitted: format_errors"}
    assert summary.rejected_because == {"not resolved: unresolved": 1, "not submitted: format_errors": 1}


def test_a_finished_run_that_is_called_again_makes_no_call(tmp_path):
    lesson(tmp_path, ScriptedPolicy(fixes))
    again = ScriptedPolicy(fixes)
    summary = lesson(tmp_path, again)
    assert again.calls == []
    assert summary.num_accepted == 2


def test_more_samples_and_more_tasks_continue_a_run(tmp_path):
    lesson(tmp_path, ScriptedPolicy(fixes), "a")
    again = ScriptedPolicy(fixes)
    lesson(tmp_path, again, "ab", TeachConfig(workers=1, samples=2))
    found = {item.trajectory_id for item in Run(tmp_path).read(TRAJECTORIES, Trajectory)}
    assert found == {"a.0", "b.0", "a.1", "b.1"}
    assert len(again.calls) == 9
    assert {sampling.seed for _, sampling in again.calls} == {0, 1, 2, 1000, 1001, 1002}


def test_another_teacher_may_not_continue_a_run(tmp_path):
    lesson(tmp_path, ScriptedPolicy(fixes))
    with pytest.raises(UserError, match="model"):
        lesson(tmp_path, ScriptedPolicy(fixes, name="another"))


def test_every_answer_is_on_disk_before_the_next_call(tmp_path):
    def answer(prompt, sampling):
        done = sum(message["role"] == "assistant" for message in prompt)
        assert len(Run(tmp_path).read(CALLS, Call)) == done
        return fixes(prompt, sampling)

    assert lesson(tmp_path, ScriptedPolicy(answer), "a").num_accepted == 1


def test_a_broken_box_leaves_its_trajectory_for_the_next_start_which_pays_for_no_answer_again(tmp_path):
    def breaks(task):
        box = open_box(task)
        return FakeSandbox({"a.py": "x = 1\n"}, {"ls": "", "fix": edit}, breaks_at=1) if task.task_id == "a" else box

    summary = lesson(tmp_path, ScriptedPolicy(fixes), open_box=breaks)
    assert (summary.num_accepted, summary.num_infra_failures, summary.exit_status) == (1, 1, "incomplete")
    assert "gone" in summary.infra_failure
    again = ScriptedPolicy(fixes)
    assert lesson(tmp_path, again).num_accepted == 2
    assert len(again.calls) == 1  # `ls` and `fix` were answered before the box broke
    assert len(Run(tmp_path).read(CALLS, Call)) == 6


def test_a_task_that_cannot_be_graded_is_neither_accepted_nor_rejected(tmp_path):
    def no_box(prediction):
        raise SandboxError("no box to grade in")

    summary = lesson(tmp_path, ScriptedPolicy(fixes), "a", grade=no_box)
    assert (summary.num_accepted, summary.num_rejected, summary.num_infra_failures) == (0, 0, 1)


def test_an_endpoint_that_fails_for_good_ends_the_run_at_once(tmp_path):
    calls = []

    def fails(prompt, sampling):
        calls.append(prompt)
        raise EndpointError("nobody there")

    with pytest.raises(EndpointError, match="nobody there"):
        lesson(tmp_path, ScriptedPolicy(fails), "abcdef")
    assert len(calls) <= 2


def test_the_budget_holds_and_a_larger_one_goes_on_without_paying_twice(tmp_path):
    small = TeachConfig(
        workers=1,
        sampling=Sampling(max_new_tokens=50),
        budget=BudgetConfig(max_tokens=1000, price_in=1.0, price_out=2.0),
    )
    policy = ScriptedPolicy(fixes)
    summary = lesson(tmp_path, policy, "abcdefgh", small)
    assert summary.exit_status == "budget"
    assert 0 < summary.num_accepted < 8
    assert summary.num_accepted + summary.num_not_begun_or_stopped == 8
    spent = summary.usage
    assert spent.prompt_tokens + spent.completion_tokens <= 1000
    assert spent.cost_usd == pytest.approx((spent.prompt_tokens + 2 * spent.completion_tokens) / 1e6)
    none_left = ScriptedPolicy(fixes)
    assert lesson(tmp_path, none_left, "abcdefgh", small).usage == spent  # what earlier starts spent counts
    assert none_left.calls == []
    large = small.model_copy(update={"budget": BudgetConfig(max_tokens=10**6, price_in=1.0, price_out=2.0)})
    more = ScriptedPolicy(fixes)
    assert lesson(tmp_path, more, "abcdefgh", large).num_accepted == 8
    assert len(policy.calls) + len(more.calls) == 24


def test_answers_that_do_not_parse_are_charged(tmp_path):
    config = TeachConfig(workers=1, budget=BudgetConfig(price_out=1e6))
    summary = lesson(tmp_path, ScriptedPolicy(lambda *_: "one two three"), "a", config)
    assert summary.usage.completion_tokens == 9
    assert summary.usage.cost_usd == pytest.approx(9.0)


def test_an_account_sets_the_worst_case_aside():
    account = Account(BudgetConfig(max_usd=1.0, price_out=1e6 / 10))  # ten tokens
    first = account.reserve(0, 6)
    with pytest.raises(BudgetReached):
        account.reserve(0, 5)
    account.release(first)
    account.charge(account.config.price(0, 2))
    account.release(account.reserve(0, 8))
    with pytest.raises(BudgetReached):
        account.reserve(0, 9)


def test_a_lost_call_is_charged_at_its_worst(tmp_path):
    from swe_srl.policy.base import Completion
    from swe_srl.policy.endpoint import EndpointConfig, EndpointPolicy

    class Flaky(EndpointPolicy):
        def ask(self, prompt, sampling, on_lost_call=None):
            on_lost_call(LostCall("broken pipe", 100, sampling.max_new_tokens))
            return Completion(text=SUBMIT, num_prompt_tokens=10, num_tokens=1)

    summary = lesson(tmp_path, Flaky(EndpointConfig(model="m")), "a")
    assert (summary.usage.prompt_tokens, summary.usage.completion_tokens) == (110, 2049)
    assert [call.status for call in Run(tmp_path).read(CALLS, Call)] == ["lost", "answered"]


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_teaching as t
count = 0
def answer(prompt, sampling):
    global count
    count += 1
    if count == {die_at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.fixes(prompt, sampling)
t.lesson({out!r}, t.ScriptedPolicy(answer), "abcd")
"""


@pytest.mark.parametrize("die_at", [2, 6])
def test_a_killed_run_goes_on_where_it_was_and_pays_for_no_answer_twice(tmp_path, die_at):
    out = str(tmp_path / "run")
    code = KILLED.format(tests=str(Path(__file__).parent), die_at=die_at, out=out)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    policy = ScriptedPolicy(fixes)
    summary = lesson(out, policy, "abcd")
    assert summary.num_accepted == 4
    assert len(policy.calls) == 12 - (
        die_at - 1
    )  # the answer that was being made when the process died was never received
    found = Run(out).read(TRAJECTORIES, Trajectory)
    assert [item.trajectory_id for item in found] == ["a.0", "b.0", "c.0", "d.0"]
    assert all(len(item.turns) == 3 for item in found)
