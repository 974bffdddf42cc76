"""Grading by swebench's rules, on a host folder that stands in for a box."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from swe_srl.errors import ConfigError, EngineUnavailable, SandboxError, UnknownTask
from swe_srl.grading.grade import EvalLog, Graded, grade, grade_unpatched, judge_run, verdict_without_tests
from swe_srl.grading.grader import Grader
from swe_srl.grading.patches import apply_patch
from swe_srl.grading.rules import eval_script, judge
from swe_srl.grading.run import current_verdicts, grade_all
from swe_srl.runtime.base import CommandResult
from swe_srl.schema import GradingSpec, Prediction, Task, Verdict
from swe_srl.store import Run

GOLD = """\
diff --git a/add.py b/add.py
--- a/add.py
+++ b/add.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a - b
+    return a + b
"""

EVAL = """\
#!/bin/bash
set -uxo pipefail
cd .
: '>>>>> Start Test Output'
python3 run_tests.py
: '>>>>> End Test Output'
git checkout HEAD run_tests.py
"""

RUN_TESTS = """\
from add import add
passed = add(1, 2) == 3
print("PASSED test.py::test_two" if passed else "FAILED test.py::test_two - wrong")
print("PASSED test.py::test_old")
raise SystemExit(not passed)
"""


class FolderBox:
    """A sandbox that is a folder of this machine: `/tmp/patch.diff` and `/eval.sh` are files beside the repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workdir = str(root / "repo")
        self.commands: list[str] = []

    def _here(self, text: str) -> str:
        return text.replace("/tmp/patch.diff", f"{self.root}/patch.diff").replace("/eval.sh", f"{self.root}/eval.sh")

    def run(self, command: str, *, timeout_s: float) -> CommandResult:
        self.commands.append(command)
        try:
            done = subprocess.run(
                ["bash", "-c", self._here(command)], cwd=self.workdir, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=timeout_s, stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            return CommandResult((error.output or b"").decode(), None, timed_out=True)
        return CommandResult(done.stdout.decode(), done.returncode)

    def write_file(self, path: str, content: bytes) -> None:
        Path(self._here(path)).write_bytes(content)


@pytest.fixture
def box(tmp_path: Path) -> FolderBox:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "add.py").write_text("def add(a, b):\n    return a - b\n")
    (repo / "run_tests.py").write_text(RUN_TESTS)
    for command in ("init -q", "add -A", "-c user.name=x -c user.email=x@example.org commit -qm start"):
        subprocess.run(["git", *command.split()], cwd=repo, check=True)
    return FolderBox(tmp_path)


def spec_of(script: str = EVAL, **changes: Any) -> GradingSpec:
    fields: dict[str, Any] = {
        "task_id": "demo__add-1", "gold_patch": GOLD, "test_patch": "", "fail_to_pass": ("test.py::test_two",),
        "pass_to_pass": ("test.py::test_old",), "eval_script": script, "log_parser": "parse_log_pytest",
    }  # fmt: skip
    return GradingSpec(**(fields | changes))


def predict(patch: str, task_id: str = "demo__add-1", model: str = "m") -> Prediction:
    return Prediction(task_id=task_id, model=model, patch=patch, exit_status="submitted")


def test_the_gold_patch_resolves(box: FolderBox) -> None:
    graded = grade(predict(GOLD), spec_of(), box, timeout_s=20)
    assert graded.verdict.status == "resolved"
    assert (graded.verdict.num_fail_to_pass_passed, graded.verdict.num_pass_to_pass_passed) == (1, 1)
    assert ">>>>> Test Exit Code: 0" in graded.log
    assert graded.report["demo__add-1"]["resolved"] is True


def test_an_untouched_tree_does_not_resolve_and_names_the_failed_test(box: FolderBox) -> None:
    verdict = grade_unpatched(spec_of(), box, timeout_s=20).verdict
    assert verdict.status == "unresolved"
    assert verdict.tests_failed == ("test.py::test_two",)


def test_an_empty_patch_is_not_run(box: FolderBox) -> None:
    assert grade(predict(" \n"), spec_of(), box, timeout_s=20).verdict.status == "empty_patch"
    assert box.commands == []


def test_a_patch_that_does_not_apply_is_a_verdict_and_leaves_no_report(box: FolderBox) -> None:
    wrong = GOLD.replace("a - b", "a * b")
    graded = grade(predict(wrong), spec_of(), box, timeout_s=20)
    assert graded.verdict.status == "patch_failed"
    assert graded.report == {}
    assert "Patch Apply Failed" in graded.instance_log
    assert sum("git checkout -- ." in command for command in box.commands) == 3
    assert "--check --reverse" in box.commands[-1]


def test_a_patch_with_drifted_context_is_applied_with_fuzz(box: FolderBox) -> None:
    patch = GOLD.replace(" def add(a, b):", " def add(first, second):")
    assert apply_patch(patch, box, timeout_s=20).ok
    assert "a + b" in (box.root / "repo" / "add.py").read_text()


def test_a_time_out_keeps_the_log_and_is_not_a_failed_test(box: FolderBox) -> None:
    graded = grade(predict(GOLD), spec_of(EVAL.replace("python3 run_tests.py", "sleep 30")), box, timeout_s=1)
    assert graded.verdict.status == "timed_out"
    assert graded.verdict.tests_failed == ()
    assert graded.log.endswith("\n\nTimeout error: 1 seconds exceeded.")


def test_a_box_that_is_gone_is_no_verdict(box: FolderBox) -> None:
    def gone(command: str, *, timeout_s: float) -> CommandResult:
        raise SandboxError("the box is gone")

    box.run = gone  # type: ignore[method-assign]
    with pytest.raises(SandboxError):
        grade(predict(GOLD), spec_of(), box, timeout_s=20)


def test_printing_passed_and_exiting_with_an_error_does_not_resolve(box: FolderBox) -> None:
    """The log reports no failure, and the recorded exit code says otherwise (swebench 5, #620)."""
    script = EVAL.replace(
        "python3 run_tests.py", "echo PASSED test.py::test_two; echo PASSED test.py::test_old; (exit 1)"
    )
    verdict = grade(predict(GOLD), spec_of(script), box, timeout_s=20).verdict
    assert verdict.status == "unresolved"
    assert verdict.note.startswith("no test results: exit code 1")


def test_the_exit_code_is_recorded_after_the_end_marker() -> None:
    lines = eval_script(spec_of()).splitlines()
    end = next(number for number, line in enumerate(lines) if "End Test Output" in line)
    assert lines[end - 1] == "SWEBENCH_TEST_EXIT_CODE=$?"
    assert "Test Exit Code" in lines[end + 1]


@pytest.mark.parametrize(
    ("status", "resolved"), [("PASSED", True), ("XFAIL", True), ("SKIPPED", False), ("FAILED", False)]
)
def test_a_fail_to_pass_test_must_really_pass(status: str, resolved: bool) -> None:
    log = f">>>>> Start Test Output\n{status} test.py::test_two\nPASSED test.py::test_old\n>>>>> End Test Output\n"
    assert judge(log, spec_of())["resolved"] is resolved


def test_a_skipped_pass_to_pass_test_is_maintained() -> None:
    log = ">>>>> Start Test Output\nPASSED test.py::test_two\nSKIPPED test.py::test_old\n>>>>> End Test Output\n"
    assert judge(log, spec_of())["resolved"] is True


def test_a_log_without_markers_counts_only_where_it_is_asked_for() -> None:
    log = "PASSED test.py::test_two\nPASSED test.py::test_old\n"
    assert judge(log, spec_of())["resolved"] is False
    assert judge(log, spec_of(), whole_log=True)["resolved"] is True
    cut = ">>>>> Start Test Output\n" + log
    assert judge(cut, spec_of(), whole_log=True)["resolved"] is False


def test_an_unknown_parser_is_named() -> None:
    with pytest.raises(ConfigError, match="parse_log_nothing"):
        judge("", spec_of(log_parser="parse_log_nothing"))


class FakeGrader:
    """Says of every patch what its text says."""

    version = "strict-1"

    def __init__(self, *ids: str) -> None:
        self.tasks = {
            task_id: Task(task_id=task_id, repo="r", base_commit="c", problem_statement="", image="i")
            for task_id in ids
        }
        self.graded: list[str] = []
        self.broken: dict[str, Exception] = {}

    def grade(self, prediction: Prediction) -> Graded:
        if prediction.task_id in self.broken:
            raise self.broken[prediction.task_id]
        self.graded.append(f"{prediction.task_id} {prediction.patch}")
        spec = spec_of(task_id=prediction.task_id)
        if prediction.patch in ("resolved", "unresolved"):
            status = "PASSED" if prediction.patch == "resolved" else "FAILED"
            log = f">>>>> Start Test Output\n{status} test.py::test_two\nPASSED test.py::test_old\n>>>>> End Test Output\n"
            return judge_run(prediction, spec, EvalLog(log, timed_out=False))
        return Graded(verdict_without_tests(prediction, spec, prediction.patch))  # type: ignore[arg-type]

    def expecting(self, predictions: Sequence[Prediction]) -> AbstractContextManager[None]:
        return nullcontext()

    def eval_script(self, task_id: str) -> str:
        return EVAL

    def infra_failure(self, prediction: Prediction, reason: str) -> Graded:
        return Graded(
            verdict_without_tests(prediction, spec_of(task_id=prediction.task_id), "infra_failure", note=reason)
        )


def test_a_second_start_grades_nothing_again_and_a_changed_patch_does(tmp_path: Path) -> None:
    grader, run = FakeGrader("a", "b"), Run(tmp_path)
    first = grade_all([predict("resolved", "a"), predict("unresolved", "b")], grader, run, source="t")
    again = grade_all([predict("resolved", "a"), predict("unresolved", "b")], grader, run, source="t")
    assert [item.status for item in again] == [item.status for item in first] == ["resolved", "unresolved"]
    assert len(grader.graded) == 2
    changed = grade_all([predict("unresolved", "a"), predict("unresolved", "b")], grader, run, source="t")
    assert [item.status for item in changed] == ["unresolved", "unresolved"]
    assert len(grader.graded) == 3


def test_what_other_rules_have_decided_is_decided_anew(tmp_path: Path) -> None:
    grader, run = FakeGrader("a"), Run(tmp_path)
    grade_all([predict("resolved", "a")], grader, run, source="t")
    grader.version = "strict-2"
    (again,) = grade_all([predict("resolved", "a")], grader, run, source="t")
    assert grader.graded == ["a resolved", "a resolved"]
    assert again.grader == "strict-2"
    grade_all([predict("resolved", "a")], grader, run, source="t")
    assert len(grader.graded) == 2


def test_a_patch_that_comes_back_has_its_old_verdict_in_force(tmp_path: Path) -> None:
    grader, run = FakeGrader("a"), Run(tmp_path)
    for patch in ("resolved", "unresolved", "resolved"):
        grade_all([predict(patch, "a")], grader, run, source="t")
    assert len(grader.graded) == 2
    assert current_verdicts(run)["a", "m", 0].status == "resolved"


def attempt_at(task_id: str, number: int, patch: str) -> Prediction:
    return predict(patch, task_id).model_copy(update={"attempt": number})


def test_attempts_at_one_task_have_verdicts_and_papers_of_their_own(tmp_path: Path) -> None:
    grader, run = FakeGrader("a"), Run(tmp_path / "x")
    predictions = [attempt_at("a", number, patch) for number, patch in enumerate(("resolved", "unresolved"))]
    verdicts = grade_all(predictions, grader, run, source="t")
    assert [(item.attempt, item.status) for item in verdicts] == [(0, "resolved"), (1, "unresolved")]
    assert {place: item.status for place, item in current_verdicts(run).items()} == {
        ("a", "m", 0): "resolved",
        ("a", "m", 1): "unresolved",
    }
    logs = run.path / "logs" / "run_evaluation" / "x"
    assert [(logs / name / "a" / "patch.diff").read_text() for name in ("m", "m.attempt-1")] == [
        "resolved",
        "unresolved",
    ]
    reports = {name: json.loads((run.path / f"{name}.x.json").read_text()) for name in ("m", "m.attempt-1")}
    assert [report["resolved_ids"] for report in reports.values()] == [["a"], []]
    assert grade_all(predictions, grader, run, source="t") == verdicts
    assert len(grader.graded) == 2


def test_a_patch_that_several_attempts_came_to_is_graded_once(tmp_path: Path) -> None:
    grader, run = FakeGrader("a"), Run(tmp_path)
    verdicts = grade_all([attempt_at("a", number, "resolved") for number in range(3)], grader, run, source="t")
    assert [(item.attempt, item.status) for item in verdicts] == [(0, "resolved"), (1, "resolved"), (2, "resolved")]
    (later,) = grade_all([attempt_at("a", 7, "resolved")], grader, run, source="t")
    assert (later.attempt, later.status) == (7, "resolved")
    assert grader.graded == ["a resolved"]


def test_when_the_apparatus_fails_on_a_shared_patch_every_attempt_says_so(tmp_path: Path) -> None:
    grader, run = FakeGrader("a"), Run(tmp_path)
    grader.broken["a"] = SandboxError("the box is gone")
    verdicts = grade_all([attempt_at("a", number, "resolved") for number in range(2)], grader, run, source="t")
    assert [(item.attempt, item.status) for item in verdicts] == [(0, "infra_failure"), (1, "infra_failure")]


def test_an_infrastructure_failure_is_recorded_and_graded_again_at_the_next_start(tmp_path: Path) -> None:
    grader, run = FakeGrader("a", "b"), Run(tmp_path)
    grader.broken["a"] = SandboxError("the box is gone")
    predictions = [predict("resolved", "a"), predict("resolved", "b")]
    verdicts = grade_all(predictions, grader, run, source="t")
    assert [(item.status, item.note) for item in verdicts] == [("infra_failure", "the box is gone"), ("resolved", "")]
    grader.broken.clear()
    assert [item.status for item in grade_all(predictions, grader, run, source="t")] == ["resolved", "resolved"]
    assert grader.graded == ["b resolved", "a resolved"]


def test_a_missing_engine_ends_the_run_and_keeps_what_was_graded(tmp_path: Path) -> None:
    grader, run = FakeGrader("a", "b"), Run(tmp_path)
    grader.broken["b"] = EngineUnavailable("no engine")
    with pytest.raises(EngineUnavailable):
        grade_all([predict("resolved", "a"), predict("resolved", "b")], grader, run, source="t", workers=1)
    assert list(current_verdicts(run)) == [("a", "m", 0)]


def test_an_unknown_task_is_named_before_anything_is_run(tmp_path: Path) -> None:
    grader = FakeGrader("a")
    with pytest.raises(UnknownTask, match="nowhere-7"):
        grade_all([predict("resolved", "a"), predict("resolved", "nowhere-7")], grader, Run(tmp_path), source="t")
    assert grader.graded == []


def test_a_prediction_the_apparatus_prevented_is_not_graded_and_not_lost(tmp_path: Path) -> None:
    lost = predict("resolved", "a").model_copy(update={"infra_failure": "the box is gone"})
    (verdict,) = grade_all([lost], FakeGrader("a"), Run(tmp_path), source="t")
    assert (verdict.status, verdict.note) == ("infra_failure", "while predicting: the box is gone")


def test_our_run_report_is_the_one_that_swebench_makes_of_our_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swebench.harness.reporting import make_run_report

    patches = {"a": "resolved", "b": "unresolved", "c": "empty_patch", "d": "patch_failed", "e": "timed_out"}
    grader, run = FakeGrader(*patches, "f"), Run(tmp_path / "night")
    grade_all([predict(patch, task, "org/m") for task, patch in patches.items()], grader, run, source="t")
    monkeypatch.chdir(run.path)
    predictions = {
        task: {
            "instance_id": task,
            "model_name_or_path": "org/m",
            "model_patch": "" if patch == "empty_patch" else patch,
        }
        for task, patch in patches.items()
    }
    ours = json.loads(Path("org__m.night.json").read_text())
    theirs = json.loads(
        make_run_report(
            predictions, [{"instance_id": task} for task in grader.tasks], "night", None, "theirs"
        ).read_text()
    )
    assert ours == theirs
    assert ours["resolved_ids"] == ["a"]
    assert ours["error_ids"] == ["d", "e"]
    assert Path("logs/run_evaluation/night/run.json").is_file()


def test_a_stale_report_goes_when_the_changed_patch_does_not_apply(tmp_path: Path) -> None:
    grader, run = FakeGrader("a"), Run(tmp_path / "x")
    for patch in ("resolved", "patch_failed"):
        grade_all([predict(patch, "a")], grader, run, source="t")
    folder = run.path / "logs" / "run_evaluation" / "x" / "m" / "a"
    assert not (folder / "report.json").exists()
    assert (folder / "patch.diff").read_text() == "patch_failed"


def test_a_verdict_line_holds_no_hidden_answer(tmp_path: Path) -> None:
    grade_all([predict("resolved", "a")], FakeGrader("a"), Run(tmp_path), source="t")
    assert "a + b" not in (tmp_path / "verdicts.jsonl").read_text()
    assert Verdict.model_fields.keys().isdisjoint({"gold_patch", "test_patch"})


def test_what_threads_would_import_at_once_is_imported_before_they_start(tmp_path: Path) -> None:
    """swebench imports docker, whose modules import each other: two threads that began with one each ended in a deadlock."""
    row = {"instance_id": "a__b-1", "repo": "a/b", "base_commit": "c", "problem_statement": "", "eval_script": "e", "log_parser": "parse_log_pytest", "FAIL_TO_PASS": [], "PASS_TO_PASS": []}  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    script = f"""
import sys
from swe_srl.grading.grader import Grader
Grader({str(tmp_path / "rows.json")!r})
print("docker.models.containers" in sys.modules, "swebench.harness.grading" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_a_grader_travels_with_its_answers_and_without_what_is_open(tmp_path: Path) -> None:
    row = {"instance_id": "a__b-1", "repo": "a/b", "base_commit": "c", "problem_statement": "", "image": "i", "patch": "gold", "eval_script": "e", "log_parser": "parse_log_pytest", "FAIL_TO_PASS": ["t"], "PASS_TO_PASS": []}  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    here = Grader(tmp_path / "rows.json", timeout_s=7, rules="swebench")
    sent = pickle.dumps(here.grade)
    (tmp_path / "rows.json").unlink()  # what is needed of it is in the parcel: another machine may not have the file
    there = pickle.loads(sent)
    assert there(predict("", "a__b-1")) == here.grade(predict("", "a__b-1"))
    grader = there.__self__
    assert (grader.tasks, grader.version, grader.gold("a__b-1")) == (here.tasks, here.version, here.gold("a__b-1"))
    assert grader._timeout_s == 7
