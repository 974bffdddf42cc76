"""Grading in real boxes: a small task repository, made and graded from end to end."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from rows import row_on_image

from swe_srl.benchmarks.gold_files import gold_files
from swe_srl.benchmarks.load import load_tasks
from swe_srl.evaluation.base import Candidate
from swe_srl.evaluation.modes import AgentModeConfig, mode_config
from swe_srl.evaluation.predict import predict as predict_all
from swe_srl.grading.grader import Grader
from swe_srl.grading.predictions import read_predictions
from swe_srl.grading.run import grade_all
from swe_srl.reporting.collect import collect
from swe_srl.reporting.summarise import summarise
from swe_srl.runtime import SandboxConfig
from swe_srl.runtime.open import backend_of
from swe_srl.schema import Prediction, Trajectory
from swe_srl.store import Run
from swe_srl.testing import ScriptedPolicy, completion

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
# Every run has images of its own: one that runs beside it must not remove them.
RUN = uuid.uuid4().hex[:12]
IMAGE = f"swe-srl/grading-test:{RUN}"

GOLD = """\
diff --git a/add.py b/add.py
--- a/add.py
+++ b/add.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a - b
+    return a + b
"""

DOCKERFILE = r"""
FROM {base}
LABEL run={run}
WORKDIR /testbed
RUN printf 'def add(a, b):\n    return a - b\n' > add.py \
 && printf 'from add import add\ngood = add(1, 2) == 3\nprint(["FAILED", "PASSED"][good], "t.py::two")\nprint("PASSED t.py::old")\nraise SystemExit(not good)\n' > t.py \
 && git init -q && git add -A && git -c user.name=x -c user.email=x@example.org commit -qm start
"""

EVAL = """\
#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout HEAD t.py
: '>>>>> Start Test Output'
python3 t.py
: '>>>>> End Test Output'
git checkout HEAD t.py
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "Dockerfile").write_text(DOCKERFILE.format(base=base_image, run=RUN))
    row = {
        "instance_id": "demo__add-1", "repo": "demo/add", "version": "1", "base_commit": "HEAD", "problem_statement": "add subtracts",
        "patch": GOLD, "test_patch": "", "FAIL_TO_PASS": ["t.py::two"], "PASS_TO_PASS": ["t.py::old"], "image": IMAGE,
        "eval_script": EVAL, "log_parser": "parse_log_pytest", "eval_type": "pass_and_fail",
    }  # fmt: skip
    with row_on_image(folder, row) as path:
        yield path


@pytest.fixture(params=["docker", "bubblewrap", "cluster"])
def sandbox(request: pytest.FixtureRequest, rows: Path) -> SandboxConfig:
    here = SandboxConfig(
        type="docker" if request.param == "docker" else "bubblewrap", archives=rows.parent / "archives"
    )
    if request.param != "cluster":
        return here
    pytest.importorskip("ray", reason="ray is not installed: pip install 'swe-srl[ray]'")
    machines = request.getfixturevalue("machines")
    machines.have(2)
    return here.model_copy(update={"cluster": machines.address})


def predict(patch: str, model: str) -> Prediction:
    return Prediction(task_id="demo__add-1", model=model, patch=patch, exit_status="submitted")


def test_gold_resolves_and_wrong_patches_do_not_each_in_a_box_of_its_own(
    rows: Path, sandbox: SandboxConfig, tmp_path: Path
) -> None:
    endless = GOLD.replace("return a + b", "return sum(iter(int, 1))")
    predictions = [
        predict(GOLD, "gold"),
        predict("", "empty"),
        predict(GOLD.replace("a + b", "a * b"), "wrong"),
        predict(GOLD.replace("a - b", "a / b"), "does not apply"),
        predict(endless, "endless"),
    ]
    run = Run(tmp_path / "run")
    verdicts = grade_all(predictions, Grader(rows, sandbox, timeout_s=3), run, source=rows, workers=2)
    assert {item.model: item.status for item in verdicts} == {
        "gold": "resolved", "empty": "empty_patch", "wrong": "unresolved", "does not apply": "patch_failed", "endless": "timed_out",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_two_machines_of_a_cluster_come_to_the_verdicts_of_threads_though_one_dies(
    rows: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'swe-srl[ray]'")
    from swe_srl.runtime.cluster import RayCluster

    patches = {
        "gold": GOLD,
        "empty": "",
        "wrong": GOLD.replace("a + b", "a * b"),
        "bad": GOLD.replace("a - b", "a / b"),
    }
    predictions = [predict(patch, f"{name}{n}") for n in range(3) for name, patch in patches.items()]
    here = grade_all(predictions, Grader(rows, timeout_s=60), Run(tmp_path / "here"), source=rows)
    machines = request.getfixturevalue("machines")
    machines.have(2)

    def lose_one(done: int, total: int) -> None:
        if done == 4:
            machines.lose_one()

    try:
        there = grade_all(
            predictions, Grader(rows, timeout_s=60), Run(tmp_path / "there"), source=rows, workers=1,
            executor=RayCluster(machines.address), progress=lose_one,
        )  # fmt: skip
    finally:
        backend_of("docker").reap()  # what ran on the machine that died, as the next run there would
    timeless = [[item.model_copy(update={"duration_s": 0.0}) for item in verdicts] for verdicts in (here, there)]
    assert timeless[0] == timeless[1]
    assert [item.status for item in there[:4]] == ["resolved", "empty_patch", "unresolved", "patch_failed"]


def test_the_untouched_tree_does_not_resolve_and_the_log_says_why(rows: Path) -> None:
    graded = Grader(rows, timeout_s=60).grade_unpatched("demo__add-1")
    assert (graded.verdict.status, graded.verdict.tests_failed) == ("unresolved", ("t.py::two",))
    assert ">>>>> Test Exit Code: 1" in graded.log


def test_swebench_judges_our_log_as_we_do(rows: Path, tmp_path: Path) -> None:
    from swebench.harness.grading import get_eval_report
    from swebench.harness.utils import make_test_spec

    graded = Grader(rows, timeout_s=60).grade(predict(GOLD, "gold"))
    log = tmp_path / "test_output.txt"
    log.write_text(graded.log)
    theirs = get_eval_report(
        make_test_spec(json.loads(rows.read_text())),
        {"instance_id": "demo__add-1", "model_name_or_path": "gold", "model_patch": GOLD},
        str(log),
        include_tests_status=True,
    )
    assert theirs == graded.report


def test_a_model_that_acts_well_is_predicted_graded_and_reported(
    rows: Path, sandbox: SandboxConfig, tmp_path: Path
) -> None:
    engineer = ScriptedPolicy(
        [
            completion("cat add.py"),
            "I forgot the form.",
            completion("sed -i 's/a - b/a + b/' add.py"),
            completion(tool="submit"),
        ]
    )
    run = Run(tmp_path / "run")
    predictions = predict_all(load_tasks(rows), engineer, AgentModeConfig(sandbox=sandbox), run)
    assert [(item.num_turns, item.num_malformed) for item in predictions] == [(4, 1)]
    grade_all(read_predictions(run.path), Grader(rows, sandbox, timeout_s=60), run, source=rows)
    (summary,) = summarise(collect([run.path])).runs
    assert (summary.resolved.k, summary.resolved.n, summary.mean_turns) == (1, 1, 4.0)
    (episode,) = run.read("episodes.jsonl", Trajectory)
    assert "return a - b" in episode.turns[0].observation


def test_a_model_that_is_given_the_files_or_finds_them_is_predicted_and_graded(
    rows: Path, sandbox: SandboxConfig, tmp_path: Path
) -> None:
    edit = "### add.py\n<<<<<<< SEARCH\n    return a - b\n=======\n    return a {} b\n>>>>>>> REPLACE"
    scripts = {
        "oracle": [edit.format("+")],
        "agentless": ["add.py", edit.format("*"), edit.format("+"), edit.format("+")],
    }
    more = {"agentless": {"num_samples": 3, "sampling": {"temperature": 1.0}}}
    for mode, script in scripts.items():
        config = mode_config(mode, {"sandbox": sandbox.model_dump(), **more.get(mode, {})})
        run = Run(tmp_path / mode)
        given = gold_files(rows, ["demo__add-1"])
        (found,) = predict_all(load_tasks(rows), ScriptedPolicy(script), config, run, gold_files=given)
        assert found.patch.splitlines()[-3:] == [" def add(a, b):", "-    return a - b", "+    return a + b"]
        (verdict,) = grade_all(read_predictions(run.path), Grader(rows, sandbox, timeout_s=60), run, source=rows)
        assert verdict.status == "resolved"
    candidates = Run(tmp_path / "agentless").read("candidates.jsonl", Candidate)
    assert [("a * b" in item.patch, item.chosen) for item in candidates] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_a_harbor_task_is_graded_by_its_own_verifier(tmp_path: Path, base_image: str) -> None:
    task = tmp_path / "tasks" / f"sum-{RUN}"
    for name, text in {
        "task.toml": '[environment]\nworkdir = "/app"\n',
        "instruction.md": "Write 3 into /app/sum.\n",
        "environment/Dockerfile": f"FROM {base_image}\nWORKDIR /app\nRUN echo 2 > sum\n",
        "tests/test.sh": 'grep -qx "$(cat "$(dirname "$0")/wanted")" /app/sum && echo 1 >/logs/verifier/reward.txt\n',
        "tests/wanted": "3\n",
    }.items():
        (task / name).parent.mkdir(parents=True, exist_ok=True)
        (task / name).write_text(text)
    grader = Grader(task.parent, timeout_s=60)

    def status(content: str) -> str:
        patch = f"diff --git a/sum b/sum\n--- a/sum\n+++ b/sum\n@@ -1 +1 @@\n-2\n+{content}\n"
        graded = grader.grade(Prediction(task_id=task.name, model="m", patch=patch, exit_status="submitted"))
        assert (">>>>> Test Exit Code: 0" in graded.log) is (graded.verdict.status == "resolved")
        return graded.verdict.status

    try:
        assert [status("3"), status("4")] == ["resolved", "unresolved"]
    finally:
        subprocess.run(["docker", "rmi", "-f", grader.tasks[task.name].image], capture_output=True, check=False)
