"""Predicting in whole episodes and on single steps, with a scripted model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from swe_srl.dialogue import Message
from swe_srl.errors import ConfigError, EndpointError, FormatError, SandboxError, UnknownTask, UserError
from swe_srl.evaluation.modes import AgentModeConfig, mode_config
from swe_srl.evaluation.predict import predict
from swe_srl.evaluation.steps import TOOL_HEAD, AgreementConfig, agree, is_same, measure_step, summary_lines, tool_lines
from swe_srl.grading.predictions import read_predictions
from swe_srl.policy.base import Completion, Sampling
from swe_srl.rewards.similarity import SimilarityConfig
from swe_srl.schema import Command, Fidelity, Prediction, Reward, Step, StepAgreement, Task, Trajectory
from swe_srl.store import Run
from swe_srl.testing import FakeSandbox, ScriptedPolicy, completion

LOOK = completion("ls")
SUBMIT = completion(tool="submit")


def say(answer: Callable[[Sequence[Message]], str] | str) -> ScriptedPolicy:
    """A model that answers by a function of the dialogue, or always the same."""
    return ScriptedPolicy(lambda prompt, _: answer if isinstance(answer, str) else answer(prompt))


def batches(policy: ScriptedPolicy) -> list[int]:
    """How many dialogues each call held."""
    return [len(prompts) for prompts, _ in policy.calls]


def prompts_of(policy: ScriptedPolicy) -> list[list[Message]]:
    return [prompt for prompts, _ in policy.calls for prompt in prompts]


def make_box(task: Task | None = None) -> FakeSandbox:
    def look(box: FakeSandbox) -> str:
        box.write_file("seen", b"yes\n")
        return "file.py\n"

    return FakeSandbox({"file.py": "x\n"}, {"ls": look})


def make_task(task_id: str) -> Task:
    return Task(task_id=task_id, repo="r", base_commit="c", problem_statement=f"mend {task_id}", image="i")


def look_then_submit(prompt: Sequence[Message]) -> str:
    return SUBMIT if any("file.py" in message["content"] for message in prompt) else LOOK


def test_progress_is_told_in_turns_and_ends_at_all_of_them(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    tasks, config = (
        [make_task(name) for name in "abc"],
        mode_config("agent", {"limits": {"max_turns": 5}, "max_parallel": 2}),
    )
    for chosen in (tasks[:1], tasks):
        told.clear()
        predict(
            chosen,
            say(look_then_submit),
            config,
            Run(tmp_path),
            open_box=make_box,
            progress=lambda *now: told.append(now),
        )
        assert told[-1] == (5 * len(chosen), 5 * len(chosen))
        assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[0] == (5, 15), "what was done before counts from the start"
    assert (6, 15) in told


def test_episodes_run_side_by_side_and_are_written_for_swebench_and_for_us(tmp_path: Path) -> None:
    policy, boxes = say(look_then_submit), [make_box() for _ in range(3)]
    free = iter(boxes)
    found = predict(
        [make_task(name) for name in "abc"],
        policy,
        AgentModeConfig(),
        Run(tmp_path),
        open_box=lambda task: next(free),
        model="org/m",
    )
    assert batches(policy) == [3, 3]
    assert [(item.task_id, item.exit_status, item.num_turns, item.usage.completion_tokens) for item in found] == [
        (name, "submitted", 2, len(f"{LOOK} {SUBMIT}".split())) for name in "abc"
    ]
    assert all(box.closed for box in boxes)
    assert json.loads((tmp_path / "preds.json").read_text())["b"] == {
        "instance_id": "b", "model_name_or_path": "org/m", "model_patch": "diff --git a/seen b/seen\n--- /dev/null\n+++ b/seen\n@@ -0,0 +1 @@\n+yes\n",
    }  # fmt: skip
    assert {item.task_id for item in Run(tmp_path).read("episodes.jsonl", Trajectory)} == set("abc")


def test_a_broken_box_is_recorded_tried_again_and_then_graded_once(tmp_path: Path) -> None:
    def broken(task: Task) -> Any:
        if task.task_id == "b":
            raise SandboxError("the box did not start")
        return make_box()

    tasks = [make_task(name) for name in "abc"]
    first = predict(tasks, say(look_then_submit), AgentModeConfig(), Run(tmp_path), open_box=broken)
    assert [item.infra_failure for item in first] == ["", "the box did not start", ""]
    assert set(json.loads((tmp_path / "preds.json").read_text())) == {"a", "c"}
    policy = say(look_then_submit)
    second = predict(tasks, policy, AgentModeConfig(), Run(tmp_path), open_box=make_box)
    assert batches(policy) == [1, 1]
    assert [item.infra_failure for item in second] == ["", "", ""]
    assert {item.task_id: item.infra_failure for item in read_predictions(tmp_path)} == dict.fromkeys("abc", "")


def test_an_endpoint_that_goes_away_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    def answer(prompt: Sequence[Message]) -> str:
        if "mend b" in prompt[1]["content"]:
            raise EndpointError("no answer")
        return SUBMIT

    tasks = [make_task(name) for name in "ab"]
    with pytest.raises(EndpointError):
        predict(tasks, say(answer), AgentModeConfig(max_parallel=1), Run(tmp_path), open_box=make_box)
    assert [item.task_id for item in Run(tmp_path).read("predictions.jsonl", Prediction)] == ["a"]
    policy = say(SUBMIT)
    assert len(predict(tasks, policy, AgentModeConfig(max_parallel=1), Run(tmp_path), open_box=make_box)) == 2
    assert batches(policy) == [1]


def test_episodes_that_do_not_wait_for_each_other_come_to_the_same(tmp_path: Path) -> None:
    run, tasks = Run(tmp_path / "apart"), [make_task(name) for name in "abcd"]
    together = predict(tasks, say(look_then_submit), AgentModeConfig(), Run(tmp_path), open_box=make_box)
    predict(tasks[:1], say(look_then_submit), AgentModeConfig(), run, open_box=make_box)
    policy = say(look_then_submit)
    apart = predict(tasks, policy, AgentModeConfig(overlap=True, max_parallel=3), run, open_box=make_box)
    assert [item.patch for item in apart] == [item.patch for item in together]
    assert sum(batches(policy)) == 6


def test_a_run_is_not_continued_with_other_settings(tmp_path: Path) -> None:
    predict([make_task("a")], say(look_then_submit), AgentModeConfig(), Run(tmp_path), open_box=make_box)
    other = AgentModeConfig(sampling=Sampling(temperature=0.5))
    with pytest.raises(UserError, match="started with sampling"):
        predict([make_task("a")], say(look_then_submit), other, Run(tmp_path), open_box=make_box)


def test_a_mode_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="no evaluation mode 'nonsense': choose one of agent, oracle, agentless"):
        mode_config("nonsense")


def differs_by_seed(prompt: Sequence[Message], sampling: Sampling) -> str:
    if any("file.py" in message["content"] for message in prompt):
        return SUBMIT
    return completion("ls", thought=str(sampling.seed))


def test_attempts_have_seeds_and_rows_of_their_own_and_more_can_be_asked_for_later(tmp_path: Path) -> None:
    config = AgentModeConfig(sampling=Sampling(temperature=0.8, seed=7))
    tasks, run = [make_task(name) for name in "ab"], Run(tmp_path)
    predict(tasks, ScriptedPolicy(differs_by_seed), config, run, open_box=make_box)
    policy = ScriptedPolicy(differs_by_seed)
    found = predict(tasks, policy, config, run, attempts=3, open_box=make_box)
    assert [(item.task_id, item.attempt) for item in found] == [(task, number) for task in "ab" for number in range(3)]
    assert batches(policy) == [4, 4], "the first attempts are not made again"
    episodes = {item.trajectory_id: item for item in run.read("episodes.jsonl", Trajectory)}
    assert {name: item.turns[0].thought for name, item in episodes.items() if item.task_id == "a"} == {
        "a.evaluation": "7",
        "a.evaluation-1": "1007",
        "a.evaluation-2": "2007",
    }
    assert {(item.task_id, item.attempt) for item in read_predictions(tmp_path)} == {
        (item.task_id, item.attempt) for item in found
    }


def test_the_patch_that_most_attempts_came_to_goes_to_swebench_where_that_is_asked(tmp_path: Path) -> None:
    def writes(words: str) -> str:
        return completion(tool="str_replace_editor", command="create", path="/testbed/new.py", file_text=f"{words}\n")

    def answer(prompt: Sequence[Message], sampling: Sampling) -> str:
        said = [message for message in prompt if message["role"] == "assistant"]
        return SUBMIT if said else writes("rare" if sampling.seed < 1000 else "common")

    config, tasks = AgentModeConfig(sampling=Sampling(temperature=1.0)), [make_task("a")]
    for choose, wanted in (("first", "+rare"), ("votes", "+common"), ("patch", "+common")):
        run = Run(tmp_path / choose)
        predict(tasks, ScriptedPolicy(answer), config, run, attempts=3, choose=choose, open_box=make_box)
        assert wanted in json.loads((run.path / "preds.json").read_text())["a"]["model_patch"]


def test_attempts_that_would_all_be_the_same_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 attempts with temperature 0 are the same attempt"):
        predict([make_task("a")], say(SUBMIT), AgentModeConfig(), Run(tmp_path), attempts=2, open_box=make_box)
    assert not (tmp_path / "predictions.jsonl").exists()


def exact(text: str, expert: Command) -> Reward:
    command = expert.arguments.get("command", "")
    return Reward(value=1.0 if f">{command}<" in text else 0.25)


def make_steps(trajectory: str, num: int) -> list[Step]:
    return [
        Step(
            step_id=f"{trajectory}/{index}", trajectory_id=trajectory, task_id="a", index=index, exit_code=0,
            command=Command(tool="bash", arguments={"command": f"echo {index}"}), observation=f"seen {index}",
            fidelity=Fidelity(exit_code=True, output=1.0, tree=None, status="faithful"),
        )
        for index in range(num)
    ]  # fmt: skip


def test_a_malformed_sample_counts_as_nothing() -> None:
    step = make_steps("t", 1)[0]
    samples = [
        Completion(text=completion("echo 0"), num_tokens=10),
        Completion(text=SUBMIT, num_tokens=20),
        Completion(text="echo 0", num_tokens=30),
    ]
    row = measure_step(step, samples, exact, "m")
    assert (row.similarity, row.num_well_formed, row.num_same_tool, row.mean_tokens) == (
        pytest.approx(1.25 / 3),
        2,
        1,
        20.0,
    )
    assert (row.num_exact, row.answer_tokens) == (1, (10, 20, 30))
    assert row.similarity_std == pytest.approx(0.4249, abs=1e-4)


@pytest.mark.parametrize(
    ("student", "same"),
    [("echo 0", True), ("echo 0\n", True), ("echo 1", False), ("echo  0", False)],
)
def test_an_action_is_exact_up_to_white_space_around_it(student: str, same: bool) -> None:
    teacher = Command(tool="bash", arguments={"command": "echo 0"})
    assert is_same(Command(tool="bash", arguments={"command": student}), teacher) is same
    assert not is_same(Command(tool="str_replace_editor", arguments=teacher.arguments), teacher)


def test_agreement_is_told_by_tool_and_lengths_are_told_as_they_are_spread() -> None:
    step = make_steps("t", 1)[0]
    submit = step.model_copy(update={"step_id": "t/1", "command": Command(tool="submit")})
    right = Completion(text=completion("echo 0"), num_tokens=10)
    rows = [
        measure_step(step, [right, Completion(text="no", num_tokens=90)], exact, "m"),
        measure_step(submit, [right, right], exact, "m"),
    ]
    by_tool = {line[0]: line for line in tool_lines(rows)}
    assert len(by_tool["bash"]) == len(TOOL_HEAD)
    assert by_tool["bash"][3].startswith("0.500")
    assert [by_tool["submit"][3][:5], by_tool["submit"][4][:5], by_tool["submit"][5][:5]] == ["0.000", "1.000", "0.000"]
    lines = dict(summary_lines(rows))
    assert lines["exactly the teacher's action"].startswith("0.250")
    assert lines["  5, 25, 50, 75, 95 %; longest"] == "10, 10, 10, 30, 78; 90"


def test_what_was_answered_is_kept_with_what_it_is_worth() -> None:
    step = make_steps("t", 1)[0]
    answers = [Completion(text=completion("echo 0"), num_tokens=10), Completion(text="echo 0", num_tokens=30)]
    row = measure_step(step, answers, SimilarityConfig().build(), "m")
    assert [(item.text, item.num_tokens, item.reward.value) for item in row.samples] == [
        (answers[0].text, 10, 1.0),
        ("echo 0", 30, -1.0),
    ]
    assert row.samples[1].reward.note
    assert row.similarity == 0.5
    before = row.model_dump(exclude={"samples"})
    assert StepAgreement.model_validate(before).samples == ()


def test_beside_the_model_stands_what_one_action_at_every_step_earns(tmp_path: Path) -> None:
    steps = make_steps("t", 4)
    steps[3] = steps[3].model_copy(update={"command": steps[1].command})
    rows = agree(steps, {"a": make_task("a")}, say(LOOK), exact, Run(tmp_path), AgreementConfig())
    assert [row.constant for row in rows] == [0.25, 1.0, 0.25, 1.0]
    assert dict(summary_lines(rows))["  of one action at every step"] == "0.625 [0.625, 0.625] (4 steps)"
    earlier = [row.model_copy(update={"constant": None}) for row in rows]
    assert "  of one action at every step" not in dict(summary_lines(earlier))


def test_the_model_sees_the_last_rounds_and_not_the_answer(tmp_path: Path) -> None:
    policy = say(LOOK)
    agree(make_steps("t", 4), {"a": make_task("a")}, policy, exact, Run(tmp_path), AgreementConfig())
    last = "\n".join(message["content"] for message in prompts_of(policy)[3])
    assert all(words in last for words in ("mend a", "echo 1", "seen 1", "echo 2", "seen 2"))
    assert not any(words in last for words in ("echo 0", "echo 3", "seen 3"))


def test_a_stopped_measurement_goes_on_with_the_same_batches(tmp_path: Path) -> None:
    steps, tasks = make_steps("t", 3) + make_steps("u", 3), {"a": make_task("a")}
    config = AgreementConfig(batch_size=2, num_samples=3)
    whole = agree(steps, tasks, say(LOOK), exact, Run(tmp_path / "whole"), config)

    def dies_late(prompt: Sequence[Message]) -> str:
        if "seen 1" in prompt[-1]["content"]:
            raise EndpointError("gone")
        return LOOK

    run = Run(tmp_path / "stopped")
    with pytest.raises(EndpointError):
        agree(steps, tasks, say(dies_late), exact, run, config)
    policy = say(LOOK)
    assert agree(steps, tasks, policy, exact, run, config) == whole
    assert batches(policy) == [2, 2]
    assert len(run.read("step_agreement.jsonl", StepAgreement)) == 6


def test_a_limit_spreads_over_all_steps_and_keeps_whole_histories(tmp_path: Path) -> None:
    policy = say(LOOK)
    rows = agree(make_steps("t", 10), {"a": make_task("a")}, policy, exact, Run(tmp_path), AgreementConfig(max_steps=3))
    assert [row.step_id for row in rows] == ["t/0", "t/3", "t/6"]
    assert "seen 5" in prompts_of(policy)[2][-1]["content"]


def test_which_steps_are_measured_does_not_depend_on_their_order_in_the_file(tmp_path: Path) -> None:
    """Trajectories stand in the file as they were finished, which differs from run to run."""
    steps, tasks, config = (
        [*make_steps("t", 4), *make_steps("u", 3)],
        {"a": make_task("a")},
        AgreementConfig(max_steps=3),
    )
    found = [
        agree(given, tasks, say(LOOK), exact, Run(tmp_path / str(number)), config)
        for number, given in enumerate((steps, steps[4:] + steps[:4]))
    ]
    assert found[0] == found[1]


def test_steps_of_other_tasks_and_repeated_steps_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownTask, match="t/0"):
        agree(make_steps("t", 1), {}, say(LOOK), exact, Run(tmp_path), AgreementConfig())
    with pytest.raises(FormatError, match="t/0 stands twice"):
        agree(
            make_steps("t", 1) * 2,
            {"a": make_task("a")},
            say(LOOK),
            exact,
            Run(tmp_path),
            AgreementConfig(),
        )
