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
EXCLUDED_FILE = "excluded.txt"


def load_tasks(path: str | Path, ids: Sequence[str] = ()) -> list[Task]:
    """The tasks of `path` in the order of their ids; with `ids`, those and in that order.

    Without `ids`, tasks are left out that `swe-srl tasks check` listed in `flaky.txt` or `swe-srl tasks decontaminate` in
    `excluded.txt`: nobody uses them.
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
    unused = excluded(path)
    return [task for task_id, task in sorted(known.items()) if task_id not in unused]


def flaky_ids(path: Path) -> set[str]:
    """The tasks that a check found not to agree with themselves."""
    return set(_listed(path / FLAKY_FILE))


def excluded(path: str | Path) -> dict[str, str]:
    """Tasks that nobody uses, with the reason: flaky ones, and those that are too like an evaluation set."""
    path = Path(path)
    flaky = dict.fromkeys(_listed(path / FLAKY_FILE), "listed as flaky")
    return {
        task_id: reason or "listed as excluded" for task_id, reason in _listed(path / EXCLUDED_FILE).items()
    } | flaky


def _listed(path: Path) -> dict[str, str]:
    """Id → the rest of its line."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {line.split()[0]: line.partition(" ")[2].strip() for line in lines if line.strip()}
