"""Teach and replay in real boxes: a small task, the built-in teacher over HTTP, and the command line between them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swe_srl.cli import app
from swe_srl.schema import Step, Trajectory
from swe_srl.store import Run

pytestmark = pytest.mark.docker

# Every run has an image of its own: one that runs beside it must not remove it.
RUN = uuid.uuid4().hex[:12]
IMAGE = f"swe-srl/teach-test:{RUN}"
CODE = "def other(n):\n    if n < 0:\n        return 0\n    return n\n\n\ndef add(a, b):\n    if a is None:\n        return b\n    return a - b\n"
# A runner of one test that says what pytest would say: the base image has no pytest.
RUNNER = """\
import sys
sys.path.insert(0, ".")
from add import add
good = add(1, 2) == 3 and add(None, 2) == 2
print("PASSED t.py::test_add" if good else "FAILED t.py::test_add")
print("1 passed in 0.01s" if good else "1 failed in 0.01s")
raise SystemExit(not good)
"""
GOLD = """\
diff --git a/add.py b/add.py
--- a/add.py
+++ b/add.py
@@ -7,4 +7,4 @@ def other(n):
 def add(a, b):
     if a is None:
         return b
-    return a - b
+    return a + b
"""
EVAL = """\
#!/bin/bash
cd /testbed
: '>>>>> Start Test Output'
echo '>>>>> Start Test Output'
python3 -m pytest
echo '>>>>> End Test Output'
"""
STATEMENT = "`add` gives a wrong result\n\nRun it with: `python -m pytest -q t.py::test_add`\n"


@pytest.fixture(scope="module")
def rows(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from swe_srl.runtime.docker.images import build_image

    folder = tmp_path_factory.mktemp("rows")
    (folder / "add.py").write_text(CODE)
    (folder / "pytest.py").write_text(RUNNER)
    (folder / "Dockerfile").write_text(
        f"FROM {base_image}\nLABEL run={RUN}\nWORKDIR /testbed\nCOPY add.py pytest.py /testbed/\n"
        "RUN command -v python || ln -s $(command -v python3) /usr/local/bin/python\n"
        "RUN git init -q && git add -A && git -c user.name=x -c user.email=x@example.org commit -qm start\n"
    )
    build_image(folder, IMAGE, {})
    row = {
        "instance_id": "demo__add-1", "repo": "demo/add", "version": "1", "base_commit": "HEAD", "problem_statement": STATEMENT,
        "patch": GOLD, "test_patch": "", "FAIL_TO_PASS": ["t.py::test_add"], "PASS_TO_PASS": [], "image": IMAGE,
        "eval_script": EVAL, "log_parser": "parse_log_pytest", "eval_type": "pass_and_fail",
    }  # fmt: skip
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    yield path
    from swe_srl.runtime.docker.client import client

    client().images.remove(IMAGE, force=True)


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def test_what_the_teacher_did_is_accepted_and_happens_again(rows: Path, tmp_path: Path) -> None:
    call("teach", "--tasks", rows, "--model", "oracle", "--samples", "4", "--workers", "2", "--out", tmp_path / "teach")
    found = Run(tmp_path / "teach").read("trajectories.jsonl", Trajectory)
    assert sorted(item.trajectory_id for item in found) == [f"demo__add-1.{sample}" for sample in range(4)]
    assert all("+    return a + b" in item.patch and item.resolved for item in found)
    assert len({len(item.turns) for item in found}) > 1  # varied

    arguments = ("replay", tmp_path / "teach" / "trajectories.jsonl", "--tasks", rows, "--out", tmp_path / "steps")
    call(*arguments)
    steps = Run(tmp_path / "steps").read("steps.jsonl", Step)
    assert len(steps) == sum(len(item.turns) for item in found)
    assert {step.fidelity.status for step in steps} == {"faithful"}
    assert all(step.fidelity.tree and step.fidelity.exit_code for step in steps)
    summary = json.loads((tmp_path / "steps" / "summary.json").read_text())
    assert (summary["num_replayed"], summary["num_same_patch"]) == (4, 4)

    before = (tmp_path / "steps" / "steps.jsonl").read_bytes()
    call(*arguments)
    assert (tmp_path / "steps" / "steps.jsonl").read_bytes() == before
