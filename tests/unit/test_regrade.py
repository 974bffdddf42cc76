"""Stored logs of other harnesses, judged again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from swe_srl.errors import FormatError, UnknownTask, UserError
from swe_srl.grading.regrade import regrade
from swe_srl.schema import Verdict
from swe_srl.store import Run

SHARED = Path(os.environ.get("SWE_SRL_SHARED", Path(__file__).parents[3] / "shared")) / "data"

ROW = {
    "instance_id": "o__r-1", "repo": "o/r", "version": "1", "base_commit": "c", "problem_statement": "p", "patch": "gold",
    "test_patch": "", "FAIL_TO_PASS": ["t.py::a"], "PASS_TO_PASS": "[]", "image": "i", "log_parser": "parse_log_pytest",
    "eval_type": "pass_and_fail", "eval_script": "x",
}  # fmt: skip


def make_logs(root: Path, name: str, **files: str) -> Path:
    folder = root / "logs" / "model" / name
    folder.mkdir(parents=True)
    for key, text in files.items():
        (
            folder
            / {
                "log": "test_output.txt",
                "patch": "patch.diff",
                "report": "report.json",
                "instance": "run_instance.log",
            }[key]
        ).write_text(text)
    (root / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    return root / "logs"


@pytest.mark.parametrize(
    ("logs", "rows", "num_resolved"),
    [
        ("mini-swe-agent-lite-dev-2026-harness", "SWE-bench_Lite_dev.parquet", (8, 23)),
        ("claude-3.5-verified-2024-harness", "verified_rows_for_logs.jsonl", (10, 31)),
    ],
)
def test_every_stored_verdict_of_the_real_logs_agrees(
    tmp_path: Path, logs: str, rows: str, num_resolved: tuple[int, int]
) -> None:
    if not (SHARED / "logs").is_dir():
        pytest.skip(f"no stored logs at {SHARED}")
    found = regrade(SHARED / "logs" / logs, SHARED / "instances" / rows, Run(tmp_path))
    assert [item.folder.name for item in found if not item.agrees] == []
    assert all(item.stored is not None for item in found)
    assert (sum(item.verdict.resolved for item in found), len(found)) == num_resolved


def test_a_log_without_markers_is_read_whole_and_a_second_start_adds_nothing(tmp_path: Path) -> None:
    logs = make_logs(tmp_path, "o__r-1", log="PASSED t.py::a\n", patch="d\n", report='{"o__r-1": {"resolved": false}}')
    run = Run(tmp_path / "out")
    for _ in range(2):
        (found,) = regrade(logs, tmp_path / "rows.jsonl", run)
    assert (found.verdict.status, found.stored, found.agrees) == ("resolved", False, False)
    assert len(run.read("verdicts.jsonl", Verdict)) == 1
    summary = json.loads((run.path / "regrade.json").read_text())
    assert (summary["num_agree"], summary["num_stored_verdicts"]) == (0, 1)


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"log": "PASSED t.py::a\n\n\nTimeout error: 60 seconds exceeded."}, "timed_out"),
        ({"instance": "INFO >>>>> Patch Apply Failed:\nx"}, "patch_failed"),
        ({"instance": "INFO the daemon went away"}, "infra_failure"),
        ({"log": ">>>>> Start Test Output\nFAILED t.py::a - x\n>>>>> End Test Output\n"}, "unresolved"),
    ],
)
def test_what_stopped_a_stored_run_is_told_apart(tmp_path: Path, files: dict[str, str], status: str) -> None:
    (found,) = regrade(make_logs(tmp_path, "o__r-1", **files), tmp_path / "rows.jsonl", Run(tmp_path / "out"))
    assert (found.verdict.status, found.stored) == (status, None)


def test_bad_input_is_named(tmp_path: Path) -> None:
    logs = make_logs(tmp_path, "o__r-2", log="")
    with pytest.raises(UnknownTask, match="o__r-2"):
        regrade(logs, tmp_path / "rows.jsonl", Run(tmp_path / "out"))
    with pytest.raises(UserError, match="no test_output"):
        regrade(tmp_path / "out", tmp_path / "rows.jsonl", Run(tmp_path / "out"))
    broken = make_logs(tmp_path / "broken", "o__r-1", log="", report="{}")
    with pytest.raises(FormatError, match="not a SWE-bench report"):
        regrade(broken, tmp_path / "rows.jsonl", Run(tmp_path / "out"))
