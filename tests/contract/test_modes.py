"""What every evaluation mode promises, whichever is named in the table: with a scripted model and boxes in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from swe_srl.dialogue import Message
from swe_srl.errors import EndpointError, EngineUnavailable, SandboxError, UserError
from swe_srl.evaluation.edits import START
from swe_srl.evaluation.locate import LIST
from swe_srl.evaluation.modes import MODES, EvaluationMode, mode_config
from swe_srl.evaluation.predict import predict
from swe_srl.policy.base import Sampling
from swe_srl.schema import Prediction, Task, Trajectory
from swe_srl.store import Run
from swe_srl.testing import FakeSandbox, ScriptedPolicy, completion

GOLD = dict.fromkeys("abcd", ("pkg/a.py",))
EDIT = f"<think>\none is two\n</think>\n```\n### pkg/a.py\n{START}\nx = 1\n=======\nx = 2\n>>>>>>> REPLACE\n```"
LOCATED = "<think>\nthere\n</think>\n```\npkg/a.py\n```"
SOLVED = "diff --git a/pkg/a.py b/pkg/a.py\n--- a/pkg/a.py\n+++ b/pkg/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"


def tasks(names: str = "abc") -> list[Task]:
    return [
        Task(task_id=name, repo="r", base_commit="c", problem_statement=f"mend {name}", image="i") for name in names
    ]


def answer(prompt: Sequence[Message], sampling: Sampling) -> str:
    """What a good engineer says in any mode."""
    system = prompt[0]["content"]
    if START in system:
        return EDIT
    if "say which files" in system:
        return LOCATED
    if any(message["role"] == "assistant" for message in prompt):
        return completion(tool="submit")
    return completion(
        tool="str_replace_editor", command="str_replace", path="/testbed/pkg/a.py", old_str="x = 1", new_str="x = 2"
    )


class Boxes:
    """Opens boxes, and knows whether all were closed."""

    def __init__(self, *broken: str) -> None:
        self.opened: list[FakeSandbox] = []
        self._broken = broken

    def __call__(self, task: Task) -> FakeSandbox:
        if task.task_id in self._broken:
            raise SandboxError("the box did not start")
        self.opened.append(
            FakeSandbox({"pkg/a.py": "x = 1\n", "tests/test_a.py": "t\n"}, {LIST: "pkg/a.py\ntests/test_a.py\n"})
        )
        return self.opened[-1]

    @property
    def all_closed(self) -> bool:
        return bool(self.opened) and all(box.closed for box in self.opened)


@pytest.fixture(params=sorted(MODES))
def mode(request: pytest.FixtureRequest) -> EvaluationMode:
    return mode_config(request.param)


def run_mode(
    config: EvaluationMode,
    path: Path,
    say: Callable[..., str] = answer,
    boxes: Boxes | None = None,
    names: str = "abc",
    **more: Any,
) -> list[Prediction]:
    policy = more.pop("policy", None) or ScriptedPolicy(say)
    return predict(tasks(names), policy, config, Run(path), gold_files=GOLD, open_box=boxes or Boxes(), **more)


def without_time(items: Sequence[Prediction]) -> list[Prediction]:
    return [item.model_copy(update={"duration_s": 0.0}) for item in items]


def test_a_task_that_is_solved_has_the_diff_of_its_box_as_patch(mode, tmp_path):
    boxes = Boxes()
    found = run_mode(mode, tmp_path, boxes=boxes)
    assert [(item.task_id, item.patch, item.mode) for item in found] == [(name, SOLVED, mode.type) for name in "abc"]
    assert boxes.all_closed
    assert all(item.num_malformed == 0 and item.num_turns == len(item.answer_tokens) > 0 for item in found)
    assert all(item.usage.completion_tokens == sum(item.answer_tokens) for item in found)
    episodes = Run(tmp_path).read("episodes.jsonl", Trajectory)
    assert {item.task_id: len(item.turns) for item in episodes} == {item.task_id: item.num_turns for item in found}
    assert all(item.patch == SOLVED for item in episodes)


def test_swebench_reads_what_is_written_for_it(mode, tmp_path):
    from swebench.harness.utils import get_predictions_from_file

    run_mode(mode, tmp_path, model="org/m")
    found = get_predictions_from_file(str(tmp_path / "preds.json"), "any", "test")
    assert sorted((item["instance_id"], item["model_name_or_path"], item["model_patch"]) for item in found) == [
        (name, "org/m", SOLVED) for name in "abc"
    ]


@pytest.mark.parametrize(
    "words", ["", "I would look at it first.", "<think>x</think>", "```\n### pkg/a.py\n<<<<<<< SEARCH\nx = 1"]
)
def test_an_answer_that_cannot_be_read_is_counted_and_is_no_failure_of_the_apparatus(mode, tmp_path, words):
    boxes = Boxes()
    found = run_mode(mode, tmp_path, lambda *_: words, boxes, "ab")
    assert all((item.patch, item.infra_failure) == ("", "") and item.num_malformed > 0 for item in found)
    assert all(item.exit_status in ("format_errors", "malformed", "not_located") for item in found)
    assert boxes.all_closed
    assert set(json.loads((tmp_path / "preds.json").read_text())) == {"a", "b"}


def test_a_box_that_does_not_start_disturbs_no_other_and_is_tried_again(mode, tmp_path):
    first = run_mode(mode, tmp_path, boxes=Boxes("b"))
    assert [item.infra_failure for item in first] == ["", "the box did not start", ""]
    assert set(json.loads((tmp_path / "preds.json").read_text())) == {"a", "c"}
    policy = ScriptedPolicy(answer)
    again = run_mode(mode, tmp_path, policy=policy)
    assert [item.patch for item in again] == [SOLVED] * 3
    assert all(len(prompts) == 1 for prompts, _ in policy.calls), "only the broken one is asked again"


def test_a_box_that_breaks_at_the_end_is_a_failure_of_the_apparatus_and_is_closed(mode, tmp_path):
    def broken() -> str:
        raise SandboxError("the box is gone")

    class Breaking(Boxes):
        def __call__(self, task: Task) -> FakeSandbox:
            box = super().__call__(task)
            if task.task_id == "b":
                box.diff = broken  # type: ignore[method-assign]
            return box

    boxes = Breaking()
    found = run_mode(mode, tmp_path, boxes=boxes)
    assert [(item.infra_failure, item.patch) for item in found] == [("", SOLVED), ("the box is gone", ""), ("", SOLVED)]
    assert boxes.all_closed
    assert found[1].num_turns > 0, "what was asked is counted all the same"


def test_a_missing_engine_ends_the_run(mode, tmp_path):
    def no_engine(task: Task) -> FakeSandbox:
        raise EngineUnavailable("no engine answers")

    with pytest.raises(EngineUnavailable):
        predict(tasks(), ScriptedPolicy(answer), mode, Run(tmp_path), gold_files=GOLD, open_box=no_engine)


def test_an_endpoint_that_goes_away_loses_nothing_and_leaves_no_box_open(mode, tmp_path):
    def dies(prompt: Sequence[Message], sampling: Sampling) -> str:
        if any("mend c" in message["content"] for message in prompt):
            raise EndpointError("no answer")
        return answer(prompt, sampling)

    one_by_one, boxes = mode.model_copy(update={"max_parallel": 1}), Boxes()
    with pytest.raises(EndpointError):
        run_mode(one_by_one, tmp_path, dies, boxes)
    assert boxes.all_closed
    assert [item.task_id for item in Run(tmp_path).read("predictions.jsonl", Prediction)] == ["a", "b"]
    policy = ScriptedPolicy(answer)
    assert [item.patch for item in run_mode(one_by_one, tmp_path, policy=policy)] == [SOLVED] * 3
    assert all("mend c" in json.dumps(prompts) for prompts, _ in policy.calls)


def test_what_an_attempt_becomes_does_not_depend_on_those_beside_it(mode, tmp_path):
    found = [
        run_mode(mode.model_copy(update={"max_parallel": parallel}), tmp_path / str(parallel), names="abcd")
        for parallel in (1, 2, 8)
    ]
    assert without_time(found[0]) == without_time(found[1]) == without_time(found[2])


def test_a_mode_that_shows_the_gold_patchs_files_says_so_and_does_not_guess_them(mode, tmp_path):
    boxes = Boxes()
    if mode.build().needs_gold_files:
        with pytest.raises(UserError, match="no gold files are given of a"):
            predict(tasks(), ScriptedPolicy(answer), mode, Run(tmp_path), open_box=boxes)
        assert not boxes.opened
    else:
        found = predict(tasks(), ScriptedPolicy(answer), mode, Run(tmp_path), open_box=boxes)
        assert [item.patch for item in found] == [SOLVED] * 3


def test_many_tasks_are_asked_for_together(mode, tmp_path):
    policy = ScriptedPolicy(answer)
    run_mode(mode, tmp_path, policy=policy, names="abcd")
    assert max(len(prompts) for prompts, _ in policy.calls) > 1


def test_attempts_are_sampled_with_seeds_of_their_own(mode, tmp_path):
    seen: list[int] = []

    def notes(prompt: Sequence[Message], sampling: Sampling) -> str:
        seen.append(sampling.seed)
        return answer(prompt, sampling)

    hot = mode.model_copy(update={"sampling": mode.sampling.model_copy(update={"temperature": 0.7, "seed": 5})})
    found = run_mode(hot, tmp_path, notes, names="a", attempts=3)
    assert [(item.task_id, item.attempt) for item in found] == [("a", 0), ("a", 1), ("a", 2)]
    assert {5, 1005, 2005} <= set(seen)
    assert len(set(seen)) == sum(item.num_turns for item in found), "no seed serves two answers"


def test_progress_ends_at_all_of_it(mode, tmp_path):
    told: list[tuple[int, int]] = []
    run_mode(mode, tmp_path, boxes=Boxes("b"), progress=lambda *now: told.append(now))
    assert told[-1][0] == told[-1][1] > 0
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_run_is_not_continued_with_other_settings(mode, tmp_path):
    run_mode(mode, tmp_path, names="a")
    other = mode.model_copy(update={"sampling": mode.sampling.model_copy(update={"seed": 1})})
    with pytest.raises(UserError, match="was started with sampling"):
        run_mode(other, tmp_path, names="a")


def test_the_settings_of_a_mode_survive_json(mode):
    assert mode_config(mode.type, json.loads(mode.model_dump_json())) == mode
