"""Teaching: nothing is paid twice, nothing beyond the budget, and only what resolves its task is accepted."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from swe_srl.errors import EndpointError, SandboxError, StorageError, UserError
from swe_srl.policy.base import Completion, Sampling
from swe_srl.policy.endpoint import EndpointConfig, EndpointPolicy
from swe_srl.policy.prices import Price, Tokens, price_of, read_prices
from swe_srl.schema import Task, Trajectory, Usage, Verdict
from swe_srl.store import Appender, Run
from swe_srl.teaching.accept import AcceptanceConfig
from swe_srl.teaching.budget import Account, BudgetConfig, BudgetReached, TaskBudgetReached
from swe_srl.teaching.journal import CALLS, KILLED, Call, Journal
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


def ended(out):
    """Every attempt that has come to an end."""
    return [call for call in Run(out).read(CALLS, Call) if call.status != "begun"]


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
        assert len(ended(tmp_path)) == done
        assert len(Run(tmp_path).read(CALLS, Call)) == 2 * done + 1  # and this one is about to be sent
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
    assert len(ended(tmp_path)) == 6


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


SMALL = Sampling(max_new_tokens=50)
PRICE = Price(input=1.0, output=2.0)


def test_the_budget_holds_and_a_larger_one_goes_on_without_paying_twice(tmp_path):
    small = TeachConfig(workers=1, sampling=SMALL, budget=BudgetConfig(max_tokens=1700, price=PRICE))
    policy = ScriptedPolicy(fixes)
    summary = lesson(tmp_path, policy, "abcdefgh", small)
    assert summary.exit_status == "budget"
    assert 0 < summary.num_accepted < 8
    assert summary.num_accepted + summary.num_not_begun_or_stopped == 8
    spent = summary.usage
    assert spent.prompt_tokens + spent.completion_tokens <= 1700
    assert spent.cost_usd == pytest.approx((spent.prompt_tokens + 2 * spent.completion_tokens) / 1e6)
    none_left = ScriptedPolicy(fixes)
    assert lesson(tmp_path, none_left, "abcdefgh", small).usage == spent  # what earlier starts spent counts
    assert none_left.calls == []
    large = small.model_copy(update={"budget": BudgetConfig(max_tokens=10**6, price=PRICE)})
    more = ScriptedPolicy(fixes)
    assert lesson(tmp_path, more, "abcdefgh", large).num_accepted == 8
    assert len(policy.calls) + len(more.calls) == 24


def test_a_cap_per_task_stops_that_task_and_no_other(tmp_path):
    def answer(prompt, sampling):
        return completion("ls") if prompt[1]["content"] == "mend a" else fixes(prompt, sampling)

    capped = TeachConfig(workers=1, sampling=SMALL, budget=BudgetConfig(max_tokens_per_task=3000))
    summary = lesson(tmp_path, ScriptedPolicy(answer), "abc", capped)
    assert (summary.num_accepted, summary.num_not_begun_or_stopped, summary.exit_status) == (2, 1, "budget")
    spent = sum(
        call.usage.prompt_tokens + call.usage.completion_tokens for call in ended(tmp_path) if call.task_id == "a"
    )
    assert 1000 < spent <= 3000


def test_the_cost_of_a_trajectory_is_that_of_its_calls_and_all_add_up(tmp_path):
    config = TeachConfig(workers=2, sampling=SMALL, budget=BudgetConfig(price=PRICE))
    summary = lesson(tmp_path, ScriptedPolicy(fixes), "abc", config)
    found = Run(tmp_path).read(TRAJECTORIES, Trajectory)
    assert sum(item.usage.cost_usd for item in found) == pytest.approx(summary.usage.cost_usd)
    assert all(item.usage.cost_usd > 0 for item in found)
    assert summary.calls == {"answered": 9}


def test_answers_that_do_not_parse_are_charged(tmp_path):
    config = TeachConfig(workers=1, budget=BudgetConfig(price=Price(output=1e6)))
    summary = lesson(tmp_path, ScriptedPolicy(lambda *_: "one two three"), "a", config)
    assert summary.usage.completion_tokens == 9
    assert summary.usage.cost_usd == pytest.approx(9.0)


def usage(completion_tokens):
    return Price(output=1e6 / 10).worst(0, completion_tokens)  # ten tokens are a dollar


def test_an_account_sets_the_worst_case_aside():
    account = Account(BudgetConfig(max_usd=1.0))
    account.reserve("a", usage(6))
    account.settle("a", usage(6), usage(2))
    account.reserve("a", usage(8))
    account.settle("a", usage(8), Usage())
    with pytest.raises(BudgetReached):
        account.reserve("a", usage(9))
    assert account.spent.cost_usd == pytest.approx(0.2)


def test_a_call_waits_for_the_room_that_calls_under_way_may_leave():
    account, entered = Account(BudgetConfig(max_usd=1.0)), threading.Event()
    account.reserve("a", usage(6))

    def second():
        account.reserve("b", usage(5))
        entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not entered.wait(0.05)
    account.settle("a", usage(6), usage(5))
    thread.join(timeout=5)
    assert entered.is_set()


def test_a_call_does_not_wait_for_room_that_will_not_come():
    account = Account(BudgetConfig(max_usd=1.0, max_usd_per_task=0.5))
    account.charge("a", usage(4))
    with pytest.raises(TaskBudgetReached):
        account.reserve("a", usage(2))
    account.reserve("b", usage(5))
    with pytest.raises(BudgetReached):
        account.reserve("b", usage(7))


def test_cached_prompts_are_cheaper_long_ones_dearer_and_the_worst_case_counts_on_no_cache():
    price = Price(
        input=2.0, cached_input=0.5, cache_write=3.0, output=10.0,
        long={"above": 1000, "input": 4.0, "output": 20.0},
    )  # fmt: skip
    million = 1e6
    assert (
        price.cost(Tokens(1000, 10, cached=600, cache_write=100)).cost_usd * million
        == 300 * 2 + 600 * 0.5 + 100 * 3 + 100
    )
    assert price.cost(Tokens(1001, 10)).cost_usd * million == 1001 * 4 + 200
    assert price.worst(1000, 10).cost_usd * million == 1000 * 3 + 100


def test_prices_that_come_along_say_when_and_where_they_were_read_and_give_way_to_the_users(tmp_path):
    from swe_srl.policy.prices import BUNDLED

    table = read_prices(BUNDLED)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", table.table["checked"])
    assert table.table["source"]
    assert all(0 < item.input < item.output for item in table.models.values())
    assert price_of("gpt-5-2025-08-07") == price_of("gpt-5") == table.models["gpt-5"]
    assert price_of("claude-haiku-4-5-20251001") == table.models["claude-haiku-4-5"]
    assert price_of("my-own") is None
    for name, text in (
        ("p.toml", '[models."gpt-5"]\ninput = 7\noutput = 8\n[models.my-own]\ninput = 1\noutput = 2\n'),
        ("p.json", '{"models": {"gpt-5": {"input": 7, "output": 8}, "my-own": {"input": 1, "output": 2}}}'),
    ):
        (tmp_path / name).write_text(text)
        assert price_of("gpt-5", tmp_path / name) == Price(input=7, output=8)
        assert price_of("my-own", tmp_path / name) == Price(input=1, output=2)
        assert price_of("gpt-4.1", tmp_path / name) == table.models["gpt-4.1"]


@pytest.mark.parametrize("text", ["[", "models = 3", "[models.x]\nprice = 3", "[models.x]\ninput = -1"])
def test_a_file_that_holds_no_prices_is_one_sentence(tmp_path, text):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(UserError, match=r"p\.toml"):
        price_of("x", tmp_path / "p.toml")


class Attempts(EndpointPolicy):
    """An endpoint of which each call is lost once, and which may not tell what it used."""

    def __init__(self, is_estimated=False):
        super().__init__(EndpointConfig(model="m"))
        self.is_estimated = is_estimated

    def ask(self, prompt, sampling, watch):
        watch.begin()
        watch.lost("broken pipe")
        watch.begin()
        answer = Completion(text=SUBMIT, num_prompt_tokens=10, num_tokens=1, is_estimated=self.is_estimated)
        watch.answered(answer)
        return answer


def test_a_lost_call_is_charged_at_its_worst(tmp_path):
    summary = lesson(tmp_path, Attempts(), "a")
    begun = next(call for call in Run(tmp_path).read(CALLS, Call) if call.status == "begun")
    assert summary.usage.completion_tokens == 2048 + 1
    assert summary.usage.prompt_tokens == begun.usage.prompt_tokens + 10
    assert [call.status for call in Run(tmp_path).read(CALLS, Call)] == ["begun", "lost", "begun", "answered"]


def test_an_answer_of_which_the_endpoint_does_not_say_what_it_used_is_charged_at_its_worst(tmp_path):
    summary = lesson(tmp_path, Attempts(is_estimated=True), "a")
    assert summary.usage.completion_tokens == 2 * 2048


def test_the_worst_case_of_a_prompt_is_never_below_its_tokens_and_close_to_them_after_the_first():
    """The estimate of three characters a token is exceeded by observations full of numbers and paths, up to twofold."""
    seen = []

    class Counting(ScriptedPolicy):
        def complete(self, prompts, sampling, **more):
            [[answer]] = super().complete(prompts, sampling, **more)
            num_bytes = sum(len(message["content"].encode()) for message in prompts[0])
            seen.append(num_bytes)
            return [[answer.model_copy(update={"num_prompt_tokens": num_bytes // 4})]]

    with TemporaryDirectory() as folder:
        long = FakeSandbox({"a.py": "x = 1\n"}, {"fix": edit, "ls": "é" * 400})
        lesson(folder, Counting(fixes), "a", open_box=lambda task: long, config=TeachConfig(acceptance=UNREPLAYED))
        worst = [call.usage.prompt_tokens for call in Run(folder).read(CALLS, Call) if call.status == "begun"]
    assert worst[0] > seen[0]
    assert seen[2] // 4 < worst[2] < seen[2] // 2  # by what the endpoint counted before, not by bytes


def test_calls_that_an_earlier_start_left_open_are_charged_at_their_worst_once_and_asked_again(tmp_path):
    run = Run(tmp_path)
    before = Journal(run, Account(BudgetConfig()))
    before.begin("a.0", 0, PRICE.worst(100, 50))
    before.close()  # as a kill would
    for _ in range(2):
        account = Account(BudgetConfig())
        journal = Journal(run, account)
        assert (account.spent.prompt_tokens, account.spent.completion_tokens) == (100, 50)
        assert journal.answer("a.0", 0) is None
        journal.close()
    assert [(call.status, call.note, call.attempt) for call in ended(tmp_path)] == [("lost", KILLED, 0)]
    policy = ScriptedPolicy(fixes)
    assert lesson(tmp_path, policy, "a").num_accepted == 1
    assert len(policy.calls) == 3
    assert [(call.turn, call.attempt) for call in ended(tmp_path)] == [(0, 0), (0, 1), (1, 0), (2, 0)]


def test_a_full_disk_charges_the_worst_case_and_sends_nothing_more(tmp_path, monkeypatch):
    def full(self, record):
        if len(policy.calls) == 2:
            raise StorageError("cannot write: no space")
        write(self, record)

    write, policy = Appender.write, ScriptedPolicy(fixes)
    monkeypatch.setattr(Appender, "write", full)
    with pytest.raises(StorageError):
        lesson(tmp_path, policy, "ab")
    monkeypatch.undo()
    assert len(policy.calls) == 2
    assert lesson(tmp_path, ScriptedPolicy(fixes)).calls == {"answered": 6, "lost": 1}


UNREPLAYED = AcceptanceConfig(replay=False)


def boxes(*kinds):
    """Opens one box of each kind after the other: the first is the teacher's, the second the one it is replayed in."""
    waiting = list(kinds)
    return lambda task: FakeSandbox({"a.py": "x = 1\n"}, waiting.pop(0))


TEACHER = {"fix": edit, "ls": "a.py\n"}


def other_edit(box):
    box.write_file("a.py", b"x = 3\n")
    return ""


@pytest.mark.parametrize(
    ("replayed", "reason"),
    [
        (TEACHER, ""),
        ({"fix": edit, "ls": "nothing of the kind is here\n"}, "not faithful: drifted: 1 of 3 steps"),
        ({"fix": other_edit, "ls": "a.py\n"}, "not faithful: lost: the files differ after step 2"),
    ],
)
def test_only_what_happens_again_in_a_fresh_box_is_accepted(tmp_path, replayed, reason):
    summary = lesson(tmp_path, ScriptedPolicy(fixes), "a", open_box=boxes(TEACHER, replayed))
    assert [item.reason for item in Run(tmp_path).read(REJECTED, Rejection)] == [reason] * bool(reason)
    assert summary.num_accepted == (not reason)
    assert summary.faithful_share == (None if reason else 1.0)


def test_one_step_in_twenty_may_drift_and_the_share_is_told(tmp_path):
    def long(prompt, sampling):
        done = sum(message["role"] == "assistant" for message in prompt)
        return [*[completion("ls")] * 25, completion("fix"), SUBMIT][done]

    count = iter(range(1000))

    def drifting(box):
        return "something else entirely\n" if next(count) == 30 else "a.py\n"

    box = {"fix": edit, "ls": drifting}
    summary = lesson(tmp_path, ScriptedPolicy(long), "a", open_box=boxes(box, box))
    assert (summary.num_accepted, summary.num_steps, summary.num_steps_faithful) == (1, 27, 26)
    assert summary.faithful_share == pytest.approx(26 / 27)


def test_what_another_patch_comes_of_is_rejected(tmp_path):
    class Forgetful(FakeSandbox):
        def diff(self):
            return super().diff().replace("x = 2", "x = 4")

    kinds = iter([FakeSandbox({"a.py": "x = 1\n"}, TEACHER), Forgetful({"a.py": "x = 1\n"}, TEACHER)])
    lesson(tmp_path, ScriptedPolicy(fixes), "a", open_box=lambda task: next(kinds))
    assert [item.reason for item in Run(tmp_path).read(REJECTED, Rejection)] == ["not faithful: another patch"]


def test_what_does_not_resolve_is_not_replayed(tmp_path):
    opened = []

    def counted(task):
        opened.append(task)
        return open_box(task)

    lesson(tmp_path, ScriptedPolicy([SUBMIT]), "a", open_box=counted)
    assert len(opened) == 1


def test_a_box_that_breaks_in_the_replay_leaves_the_trajectory_for_the_next_start_and_costs_nothing_more(tmp_path):
    kinds = iter([{"breaks_at": None}, {"breaks_at": 1}])
    breaking = lambda task: FakeSandbox({"a.py": "x = 1\n"}, TEACHER, **next(kinds))  # noqa: E731
    summary = lesson(tmp_path, ScriptedPolicy(fixes), "a", open_box=breaking)
    assert (summary.num_accepted, summary.num_rejected, summary.num_infra_failures) == (0, 0, 1)
    again = ScriptedPolicy(fixes)
    assert lesson(tmp_path, again, "a").num_accepted == 1
    assert again.calls == []


def test_until_accepted_makes_no_more_of_a_task_than_it_needs(tmp_path):
    def answer(prompt, sampling):  # `b` is solved at its second sample
        return SUBMIT if prompt[1]["content"] == "mend b" and sampling.seed < 1000 else fixes(prompt, sampling)

    config = TeachConfig(workers=3, samples=4, until_accepted=True)
    policy = ScriptedPolicy(answer)
    summary = lesson(tmp_path, policy, "abc", config)
    assert {item.trajectory_id for item in Run(tmp_path).read(TRAJECTORIES, Trajectory)} == {"a.0", "b.1", "c.0"}
    assert (summary.num_accepted, summary.num_rejected, summary.num_not_needed) == (3, 1, 8)
    assert summary.exit_status == "finished"
    assert len(policy.calls) == 3 + 1 + 3 + 3
    again = ScriptedPolicy(answer)
    assert lesson(tmp_path, again, "abc", config).num_not_needed == 8
    assert again.calls == []


def test_a_run_that_is_interrupted_lets_nobody_ask_once_more(tmp_path):
    """Ctrl-C used to wait for whole episodes to end, which went on paying."""
    begun = threading.Event()

    def interrupt(done, total):
        begun.wait(5)
        raise KeyboardInterrupt

    def first_is_brief(prompt, sampling):
        if prompt[1]["content"] == "mend a":
            return SUBMIT
        begun.set()
        time.sleep(0.05)
        return completion("ls")

    policy = ScriptedPolicy(first_is_brief)
    with pytest.raises(KeyboardInterrupt):
        lesson(tmp_path, policy, "ab", TeachConfig(workers=2), progress=interrupt)
    assert len(policy.calls) < 10


DIES = """
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
    code = DIES.format(tests=str(Path(__file__).parent), die_at=die_at, out=out)
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
