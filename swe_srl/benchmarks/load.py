"""A task repository, Harbor tasks or rows → Tasks: the one way in for every verb that takes TASKS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swe_srl.benchmarks.harbor import harbor_folders, read_harbor
from swe_srl.benchmarks.rows import HUB_ID, read_rows, task_of_row
from swe_srl.benchmarks.task_repo import TaskRepo, unknown_task
from swe_srl.errors import UserError
from swe_srl.schema import Task

FLAKY_FILE = "flaky.txt"


def load_tasks(path: str | Path, ids: Sequence[str] = ()) -> list[Task]:
    """The tasks of `path` in the order of their ids; with `ids`, those and in that order.

    Without `ids`, tasks that `swe-srl tasks check` listed in `flaky.txt` are left out: nobody uses them.
    Raises UserError when there is nothing to read, UnknownTask for an id that is not there.
    """
    path = Path(path)
    if harbor := harbor_folders(path):
        known = {folder.name: task_of_row(read_harbor(folder), str(folder)) for folder in harbor}
    elif path.is_dir():
        known = TaskRepo(path).tasks
    elif path.is_file() or HUB_ID.fullmatch(str(path)):
        rows = read_rows(path)
        known = {row["instance_id"]: task_of_row(row, str(path)) for row in rows if "dockerfile" not in row}
        if rows and not known:
            raise UserError(
                f"{path}: the bugs of these rows stand on branches of their images: make a task repository of them first, with `swe-srl tasks import`"
            )
    else:
        raise UserError(
            f"no tasks at {path}: give a task repository (`swe-srl tasks make`) or rows as JSONL, JSON or parquet"
        )
    if ids:
        for task_id in ids:
            if task_id not in known:
                raise unknown_task(task_id, known, str(path))
        return [known[task_id] for task_id in ids]
    flaky = flaky_ids(path)
    return [task for task_id, task in sorted(known.items()) if task_id not in flaky]


def flaky_ids(path: Path) -> set[str]:
    """The tasks that a check found not to agree with themselves."""
    listed = path / FLAKY_FILE
    return {line.split()[0] for line in listed.read_text().splitlines() if line.strip()} if listed.is_file() else set()
