"""Rows ↔ task repo: SWE-bench v5 rows of others become a task repo, and a task repo becomes rows for other tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from swe_srl.benchmarks.grading_spec import load_specs, missing_fields, row_of, spec_of_row
from swe_srl.benchmarks.rows import Row, derived_image, image_of, read_rows, task_of_row
from swe_srl.benchmarks.task_repo import TaskRepo
from swe_srl.making.write import dump_yaml, write_index
from swe_srl.store import Run, write_text

DATASET = "swe-srl/imported"


class Imported(NamedTuple):
    """What came of a file of rows."""

    task_ids: list[str]
    skipped: dict[str, str]
    """Instance id → why it is no task here."""


def import_rows(path: str | Path, out: str | Path, *, split: str = "test") -> Imported:
    """Write each gradable row of `path` as a task under `out`. Raises UserError or FormatError when it cannot be read."""
    rows = read_rows(path)
    task_ids: list[str] = []
    skipped: dict[str, str] = {}
    root = Run(out).path
    for row in rows:
        reason = _refusal(row)
        if reason:
            skipped[row["instance_id"]] = reason
            continue
        _write_row(row, root / "tasks" / row["instance_id"], split, where=str(path))
        task_ids.append(row["instance_id"])
    if task_ids:
        write_index(root)
    return Imported(task_ids, skipped)


def export_rows(path: str | Path) -> Iterator[str]:
    """Each task of a task repo as one line of JSON, a SWE-bench v5 row with its answer."""
    specs = load_specs(path)
    for task_id, task in TaskRepo(path).tasks.items():
        yield json.dumps(row_of(task, specs[task_id]), ensure_ascii=False)


def _refusal(row: Row) -> str:
    missing = missing_fields(row)
    if missing:
        return f"no {', '.join(missing)}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", row["instance_id"]):
        return "its instance_id is no name for a folder"
    return ""


def _write_row(row: Row, folder: Path, split: str, where: str) -> None:
    task, spec = task_of_row(row, where), spec_of_row(row, where)
    meta: dict[str, Any] = {
        "instance_id": task.task_id,
        "repo": task.repo,
        "version": task.version,
        "base_commit": task.base_commit,
        "split": split,
        "datasets": [DATASET],
        "image": derived_image(task.task_id),
        "log_parser": spec.log_parser,
        "eval_type": spec.eval_type,
        "created_at": str(row.get("created_at") or ""),
    }
    tests = {"FAIL_TO_PASS": list(spec.fail_to_pass), "PASS_TO_PASS": list(spec.pass_to_pass)}
    files = {
        "problem_statement.md": task.problem_statement,
        "tests.json": json.dumps(tests, indent=2, ensure_ascii=False) + "\n",
        "gold.patch": spec.gold_patch,
        "test.patch": spec.test_patch,
        "eval.sh": spec.eval_script,
        "Dockerfile": f"FROM {image_of(row)}\n",
        ".dockerignore": "*\n",
        "task.yaml": dump_yaml(meta),
    }
    if row.get("hints_text"):
        files["hints.md"] = row["hints_text"]
    for name, text in files.items():
        write_text(folder / name, text)
