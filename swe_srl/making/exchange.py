"""Rows and Harbor tasks ↔ task repo: what others publish becomes a task repo, and a task repo becomes what others read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from swe_srl.benchmarks.dialects import derived_image, image_of
from swe_srl.benchmarks.grading_spec import load_specs, refusal, row_of, spec_of_row
from swe_srl.benchmarks.harbor import harbor_files, harbor_folders, read_harbor
from swe_srl.benchmarks.rows import Row, read_rows, task_of_row
from swe_srl.benchmarks.task_repo import TaskRepo
from swe_srl.errors import FormatError
from swe_srl.making.write import dump_yaml, write_index
from swe_srl.store import Run, write_text

DATASET = "swe-srl/imported"


class Imported(NamedTuple):
    """What came of a file of rows."""

    task_ids: list[str]
    skipped: dict[str, str]
    """Instance id → why it is no task here."""


def import_rows(
    path: str | Path, out: str | Path, *, split: str = "test", build: Callable[[Row], str] | None = None
) -> Imported:
    """Write each gradable row of `path` as a task under `out`.

    Args:
        path: rows, or Harbor tasks.
        out: the task repo.
        split: that the tasks are put in.
        build: gives the Dockerfile of a row in place of one that stands on the row's own image.

    Raises UserError or FormatError when it cannot be read.
    """
    harbor = harbor_folders(Path(path))
    rows = [read_harbor(folder) for folder in harbor] if harbor else read_rows(path)
    task_ids: list[str] = []
    skipped: dict[str, str] = {}
    root = Run(out).path
    for row in rows:
        reason = _refusal(row)
        if build and not reason:
            try:
                row["dockerfile"] = build(row)
            except FormatError as error:
                reason = str(error)
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


def export_harbor(path: str | Path, out: str | Path) -> Imported:
    """Write each task of a task repo as a Harbor task below `out`, built on the task's own image.

    A task that Harbor cannot grade is left out, with the reason.
    """
    specs = load_specs(path)
    root = Run(out).path
    written: list[str] = []
    skipped: dict[str, str] = {}
    for task_id, task in TaskRepo(path).tasks.items():
        try:
            files = harbor_files(row_of(task, specs[task_id]) | {"workdir": task.workdir}, f"FROM {task.image}\n")
        except FormatError as error:
            skipped[task_id] = str(error)
            continue
        for name, text in files.items():
            write_text(root / task_id / name, text)
        written.append(task_id)
    return Imported(written, skipped)


def _refusal(row: Row) -> str:
    reason = refusal(row)
    if reason:
        return reason
    lacking = [key for key in ("repo", "base_commit", "problem_statement") if not isinstance(row.get(key), str)]
    if lacking:
        return f"no {', '.join(lacking)}"
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
        "workdir": task.workdir,
        "log_parser": spec.log_parser,
        "eval_type": spec.eval_type,
        "created_at": str(row.get("created_at") or ""),
    }
    tests: dict[str, Any] = {"FAIL_TO_PASS": list(spec.fail_to_pass), "PASS_TO_PASS": list(spec.pass_to_pass)}
    if spec.expected:
        tests["expected"] = spec.expected
    files = {
        "problem_statement.md": task.problem_statement,
        "tests.json": json.dumps(tests, indent=2, ensure_ascii=False) + "\n",
        "gold.patch": spec.gold_patch,
        "test.patch": spec.test_patch,
        "eval.sh": spec.eval_script,
        "Dockerfile": row.get("dockerfile") or f"FROM {image_of(row)}\n",
        ".dockerignore": "*\n",
        "task.yaml": dump_yaml(meta),
    }
    if row.get("hints_text"):
        files["hints.md"] = row["hints_text"]
    if row.get("image_context"):  # the image is built from more than a line
        shutil.copytree(row["image_context"], folder, dirs_exist_ok=True)
        del files["Dockerfile"], files[".dockerignore"]
    for name, text in files.items():
        write_text(folder / name, text)
