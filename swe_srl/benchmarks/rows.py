"""SWE-bench rows (classic, v5, SWE-Gym, SWE-rebench) in JSONL, JSON or parquet → dicts and Tasks.

Field names of SWE-bench appear here and in `grading_spec` only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swe_srl.errors import FormatError, UserError
from swe_srl.schema import Task
from swe_srl.store import read_json, read_jsonl

SUFFIXES = (".jsonl", ".json", ".parquet")
Row = dict[str, Any]


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a file. A `.json` may hold a list, a single row, or a dict by instance id. Raises UserError or FormatError."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: give rows as {', '.join(SUFFIXES)}")
    if path.suffix == ".jsonl":
        rows = [row for _, row in read_jsonl(path)]
    elif path.suffix == ".json":
        rows = _rows_of_json(read_json(path), path)
    elif path.suffix == ".parquet":
        rows = _rows_of_parquet(path)
    else:
        raise UserError(
            f"{path}: rows are read from {', '.join(SUFFIXES)}, not {path.suffix or 'a file without suffix'}"
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("instance_id"), str) or not row["instance_id"]:
            raise FormatError(f"{path}, row {number}: no instance_id, so it is not a SWE-bench row")
    return rows


def _rows_of_json(value: object, path: Path) -> list[Row]:
    if isinstance(value, dict):
        value = [value] if "instance_id" in value else list(value.values())
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise FormatError(f"{path}: expected a list of rows")
    return list(value)


def _rows_of_parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise FormatError(f"{path} is not a parquet file: {error}") from error
    return rows


def image_of(row: Row) -> str:
    """The image of a row: `image` (v5), `image_name`, `docker_image`, else the name that SWE-bench derives from the id."""
    for key in ("image", "image_name", "docker_image"):
        if row.get(key):
            return str(row[key])
    return derived_image(row["instance_id"])


def derived_image(task_id: str) -> str:
    """SWE-bench's own name for the image of a task; image names know no upper case and no double underscore."""
    return f"swebench/sweb.eval.x86_64.{task_id.lower()}:latest".replace("__", "_1776_")


def task_of_row(row: Row, where: str = "row") -> Task:
    """What a student may see of a row. Raises FormatError naming a missing field."""
    for key in ("repo", "base_commit", "problem_statement"):
        if not isinstance(row.get(key), str):
            raise FormatError(f"{where}: {row.get('instance_id')}: no {key}")
    return Task(
        task_id=row["instance_id"],
        repo=row["repo"],
        version=str(row.get("version") or ""),
        base_commit=row["base_commit"],
        problem_statement=row["problem_statement"],
        image=image_of(row),
        image_context=row.get("image_context") or None,
    )
