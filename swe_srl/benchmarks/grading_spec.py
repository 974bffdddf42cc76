"""Task repo or rows → GradingSpecs: the hidden answers. Imported by `benchmarks`, `grading` and `making` only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swe_srl.benchmarks.harbor import harbor_folders, read_harbor
from swe_srl.benchmarks.rows import Row, read_rows
from swe_srl.benchmarks.task_repo import TASK_FILE, TaskRepo, read_file, read_yaml
from swe_srl.errors import FormatError
from swe_srl.schema import GradingSpec, Task

GRADING_FIELDS = ("eval_script", "log_parser")
"""What v5 rows carry and classic ones do not; without them nobody knows how to run the tests."""


def load_specs(path: str | Path) -> dict[str, GradingSpec]:
    """The answer of each task of a repository or file of rows, by id; a row that cannot be graded has none.

    Raises UserError or FormatError.
    """
    path = Path(path)
    if harbor := harbor_folders(path):
        return {folder.name: spec_of_row(read_harbor(folder), str(folder)) for folder in harbor}
    if path.is_dir():
        return {folder.name: read_spec(folder) for folder in TaskRepo(path).folders()}
    return {row["instance_id"]: spec_of_row(row, str(path)) for row in read_rows(path) if not refusal(row)}


def read_spec(folder: Path) -> GradingSpec:
    """The answer of the task in `folder`. Raises FormatError."""
    meta = read_yaml(folder / TASK_FILE)
    try:
        tests = json.loads(read_file(folder / "tests.json"))
    except ValueError as error:
        raise FormatError(f"{folder / 'tests.json'}: not JSON ({error})") from error
    row = meta | tests | {
        "patch": read_file(folder / "gold.patch"),
        "test_patch": read_file(folder / "test.patch"),
        "eval_script": read_file(folder / "eval.sh"),
    }  # fmt: skip
    return spec_of_row(row, str(folder))


def refusal(row: Row) -> str:
    """Why a row cannot be graded; empty when it can."""
    if row.get("unusable"):
        return str(row["unusable"])
    needed = GRADING_FIELDS if row.get("expected") else (*GRADING_FIELDS, "FAIL_TO_PASS", "PASS_TO_PASS")
    missing = [key for key in needed if row.get(key) is None or row[key] == ""]
    return f"no {', '.join(missing)}" if missing else ""


def spec_of_row(row: Row, where: str) -> GradingSpec:
    """The answer in a row. FAIL_TO_PASS and PASS_TO_PASS may be lists or JSON strings. Raises FormatError."""
    try:
        return GradingSpec(
            task_id=row["instance_id"],
            gold_patch=row.get("patch") or "",
            test_patch=row.get("test_patch") or "",
            fail_to_pass=_test_ids(row, "FAIL_TO_PASS", where),
            pass_to_pass=_test_ids(row, "PASS_TO_PASS", where),
            eval_script=row.get("eval_script") or "",
            log_parser=row.get("log_parser") or "",
            eval_type=row.get("eval_type") or "pass_and_fail",
            expected=row.get("expected") or {},
        )
    except (ValidationError, KeyError) as error:
        raise FormatError(f"{where}: {row.get('instance_id')}: not a gradable row: {error}") from error


def _test_ids(row: Row, key: str, where: str) -> tuple[str, ...]:
    value: Any = row.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise FormatError(f"{where}: {row.get('instance_id')}: {key} is neither a list nor a JSON list") from error
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FormatError(f"{where}: {row.get('instance_id')}: {key} is not a list of test ids")
    return tuple(value)


def row_of(task: Task, spec: GradingSpec) -> Row:
    """A task and its answer as a SWE-bench v5 row, which `swebench eval ROWS.jsonl` reads."""
    return {
        "repo": task.repo,
        "instance_id": task.task_id,
        "base_commit": task.base_commit,
        "patch": spec.gold_patch,
        "test_patch": spec.test_patch,
        "problem_statement": task.problem_statement,
        "hints_text": "",
        "created_at": "",
        "version": task.version,
        "FAIL_TO_PASS": list(spec.fail_to_pass),
        "PASS_TO_PASS": list(spec.pass_to_pass),
        "environment_setup_commit": task.base_commit,
        "image": task.image,
        "eval_script": spec.eval_script,
        "log_parser": spec.log_parser,
        "eval_type": spec.eval_type,
    } | ({"expected": spec.expected} if spec.expected else {})
