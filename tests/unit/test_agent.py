"""A model acts until it submits; what it cannot do right is an outcome, what the apparatus does wrong disturbs nobody else."""

import pytest

from swe_srl.agent import AgentLimits, Episode, run_episode
from swe_srl.dialogue import ContextConfig
from swe_srl.episodes import run_episodes
from swe_srl.errors import EndpointError, SandboxError
from swe_srl.policy.base import Completion, Sampling
from swe_srl.runtime.base import CommandResult
from swe_srl.schema import Task
from swe_srl.testing import FakeSandbox, ScriptedPolicy, completion

SUBMIT = completion(tool="submit")


def task(name="a"):
    return Task(task_id=name, repo="toy", base_commit="0" * 40, problem_statement=f"mend {name}", image="toy:1")


def episode(sandbox, limits=None, window=2, **more):
    return Episode(task(), sandbox, ContextConfig(window=window), limits or AgentLimits(), **more)


def edit(box):
    box.write_file("a.py", b"x = 2\n")
    return ""


def test_an_episode_ends_with_its_submission_and_hands_in_the_diff():
    box = FakeSandbox({"a.py": "x = 1\n"}, {"fix": edit})
    result = run_episode(ScriptedPolicy([completion("fix"), SUBMIT]), episode(box), Sampling())
    assert result.exit_status == "submitted"
    assert "-x = 1\n+x = 2\n" in result.patch
    assert [turn.command.tool for turn in result.turns] == ["bash", "submit"]
    assert result.prediction("m").num_turns == 2


def test_an_episode_that_runs_out_of_turns_hands_in_the_diff_too():
    box = FakeSandbox({"a.py": "x = 1\n"}, {"fix": edit})
    result = run_episode(ScriptedPolicy([completion("fix")] * 2), episode(box, AgentLimits(max_turns=2)), Sampling())
    assert result.exit_status == "turn_limit"
    assert "+x = 2" in result.patch


def test_an_episode_that_has_cost_what_it_may_ends_with_its_diff():
    box = FakeSandbox({"a.py": "x = 1\n"}, {"fix": edit})
    acting = episode(box, AgentLimits(max_usd=0.5))
    acting.act(Completion(text=completion("ls"), cost_usd=0.3))
    assert not acting.finished
    acting.act(Completion(text=completion("fix"), cost_usd=0.2))
    result = acting.result()
    assert (result.exit_status, result.usage.cost_usd) == ("cost_limit", 0.5)
    assert "+x = 2" in result.patch


def test_a_failing_command_and_a_time_out_are_observations():
    box = FakeSandbox(answers={"no": CommandResult("bad\n", 3), "slow": CommandResult("so far", None, timed_out=True)})
    acting = episode(box)
    assert acting.act(Completion(text=completion("no"))).exit_code == 3
    assert acting.act(Completion(text=completion("slow"))).timed_out
    shown = [message["content"] for message in acting.messages()]
    assert "[exit 3]\nbad" in shown[3]
    assert shown[5].startswith("[timed out]")


def test_a_malformed_answer_runs_nothing_and_is_told_what_was_wrong():
    box = FakeSandbox()
    acting = episode(box)
    turn = acting.act(Completion(text="ls"))
    assert turn.command is None
    assert turn.exit_code is None
    assert "no <think>" in turn.observation
    assert box.commands == []
    assert not acting.finished
    assert acting.messages()[-1]["content"].endswith(turn.observation.rstrip())


def test_malformed_answers_in_a_row_end_the_episode_and_a_good_one_between_starts_the_count_again():
    script = ["x", "x", completion("ls"), "x", "x", "x", SUBMIT]
    result = run_episode(ScriptedPolicy(script), episode(FakeSandbox(answers={"ls": ""})), Sampling())
    assert result.exit_status == "format_errors"
    assert len(result.turns) == 6
    assert result.num_malformed == 5


def test_a_prompt_that_the_model_cannot_read_ends_the_episode():
    acting = episode(FakeSandbox())
    acting.act(Completion(text="", finish_reason="prompt_too_long"))
    assert acting.exit_status == "token_limit"


def test_the_completion_tokens_of_an_episode_can_be_limited():
    limits = AgentLimits(max_completion_tokens=10)
    result = run_episode(ScriptedPolicy([completion("ls")] * 9), episode(FakeSandbox(), limits), Sampling())
    assert result.exit_status == "token_limit"
    assert 10 <= result.usage.completion_tokens < 20


def test_each_turn_is_sampled_with_a_seed_of_its_own():
    policy = ScriptedPolicy([completion("ls"), completion("ls"), SUBMIT])
    run_episode(policy, episode(FakeSandbox()), Sampling(seed=40))
    assert [sampling.seed for _, sampling in policy.calls] == [40, 41, 42]


def test_trees_are_recorded_when_asked_for():
    acting = episode(FakeSandbox({"a.py": "x = 1\n"}, {"fix": edit, "look": ""}), record_trees=True)
    trees = [acting.act(Completion(text=completion(command))).tree for command in ("look", "fix", "look")]
    assert trees[0] != trees[1] == trees[2]
    assert not episode(FakeSandbox(answers={"look": ""})).act(Completion(text=completion("look"))).tree


def test_acting_after_the_end_is_a_mistake_of_the_caller():
    acting = episode(FakeSandbox())
    acting.act(Completion(text=SUBMIT))
    with pytest.raises(RuntimeError, match="finished"):
        acting.act(Completion(text=SUBMIT))


def lockstep(policy, boxes, sampling=None, **more):
    opened = {}

    def open_box(item):
        box = boxes[item.task_id]
        if isinstance(box, Exception):
            raise box
        opened[item.task_id] = box
        return box

    found = list(run_episodes(policy, [task(name) for name in boxes], open_box, sampling or Sampling(), **more))
    assert all(box.closed for box in opened.values())
    return {result.task.task_id: result for result in found}


def submits_after(turns):
    """Answers by task: `ls` so many times, then submit. The full history tells how many lie behind."""

    def answer(prompt, sampling):
        done = sum(message["role"] == "assistant" for message in prompt)
        name = prompt[1]["content"].removeprefix("mend ")
        return SUBMIT if done >= turns[name] else completion("ls")

    return answer


def test_lock_step_asks_for_all_live_episodes_in_one_call_and_keeps_the_batch_full():
    turns = {"a": 0, "b": 3, "c": 1, "d": 1}
    policy = ScriptedPolicy(submits_after(turns))
    boxes = {name: FakeSandbox(answers={"ls": ""}) for name in turns}
    results = lockstep(policy, boxes, max_parallel=2, context=ContextConfig(window="all"))
    assert {name: result.exit_status for name, result in results.items()} == dict.fromkeys(turns, "submitted")
    assert {name: len(result.turns) - 1 for name, result in results.items()} == turns
    assert [len(prompts) for prompts, _ in policy.calls] == [2, 2, 2, 2, 1]


def test_an_answer_is_sampled_alike_whatever_else_is_live():
    """A resumed evaluation has fewer episodes side by side; at temperature > 0 it must say the same as an unbroken one."""

    def answer(prompt, sampling):
        return (
            SUBMIT
            if sampling.seed == 10 + 2 * len(prompt[1]["content"].removeprefix("mend "))
            else completion(f"echo {sampling.seed}")
        )

    def thoughts(max_parallel):
        policy = ScriptedPolicy(answer)
        boxes = {
            name: FakeSandbox(answers={f"echo {10 + turn}": "" for turn in range(12)}) for name in ("a", "bb", "cccc")
        }
        sampling = Sampling(temperature=1.0, seed=10)
        results = lockstep(policy, boxes, max_parallel=max_parallel, sampling=sampling)
        return {name: [turn.command for turn in result.turns] for name, result in results.items()}

    assert thoughts(1) == thoughts(3)
    assert {name: len(turns) for name, turns in thoughts(3).items()} == {"a": 3, "bb": 5, "cccc": 9}


def test_a_box_that_breaks_or_does_not_open_ends_its_own_episode_only():
    boxes = {
        "a": FakeSandbox(answers={"ls": ""}),
        "b": FakeSandbox(answers={"ls": ""}, breaks_at=1),
        "c": SandboxError("no box today"),
        "d": FakeSandbox(answers={"ls": ""}),
    }
    policy = ScriptedPolicy(submits_after(dict.fromkeys(boxes, 2)))
    results = lockstep(policy, boxes, max_parallel=1, context=ContextConfig(window="all"))
    assert [results[name].exit_status for name in "abcd"] == ["submitted", "", "", "submitted"]
    assert "gone" in results["b"].infra_failure
    assert "no box today" in results["c"].infra_failure
    assert results["b"].prediction("m").infra_failure
    assert [results[name].number for name in "abcd"] == [0, 1, 2, 3]


def test_no_box_stays_open_when_the_policy_fails():
    boxes = {name: FakeSandbox() for name in "abc"}

    def unreachable(prompt, sampling):
        raise EndpointError("nobody there")

    with pytest.raises(EndpointError):
        list(
            run_episodes(
                ScriptedPolicy(unreachable),
                [task(name) for name in boxes],
                lambda item: boxes[item.task_id],
                Sampling(),
                max_parallel=2,
            )
        )
    assert boxes["a"].closed
    assert boxes["b"].closed
