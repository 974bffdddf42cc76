"""A swebench v5 task repo → Tasks, without their answers.

Layout (one directory a task): `sweb.yaml`, `tasks/<id>/{task.yaml,tests.json,problem_statement.md,gold.patch,test.patch,
eval.sh,Dockerfile}`. swebench's own loader reads the answers too; this one leaves those files closed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from swe_srl.errors import FormatError, UnknownTask, UserError
from swe_srl.schema import Task

TASK_FILE = "task.yaml"


class TaskRepo:
    """One task repository. Raises UserError when `path` is none."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "tasks").is_dir():
            raise UserError(
                f"{self.path} is not a task repository, it has no tasks/ folder: make one with `swe-srl tasks make`"
            )

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Every task by id, sorted. Raises FormatError naming the file that is wrong."""
        return {folder.name: read_task(folder) for folder in self.folders()}

    def folders(self) -> list[Path]:
        """The directory of each task, sorted by id."""
        return sorted(folder for folder in (self.path / "tasks").iterdir() if (folder / TASK_FILE).is_file())

    def task(self, task_id: str) -> Task:
        """The task of that id. Raises UnknownTask naming the closest ids."""
        if task_id not in self.tasks:
            raise unknown_task(task_id, self.tasks, str(self.path))
        return self.tasks[task_id]


def read_task(folder: Path) -> Task:
    """What a student may see of the task in `folder`. Raises FormatError."""
    meta = read_yaml(folder / TASK_FILE)
    missing = [key for key in ("instance_id", "repo", "base_commit", "image") if not meta.get(key)]
    if missing:
        raise FormatError(f"{folder / TASK_FILE} has no {', '.join(missing)}: mend it or make the task again")
    if meta["instance_id"] != folder.name:
        raise FormatError(
            f"{folder / TASK_FILE}: instance_id is {meta['instance_id']!r}, but the folder is {folder.name!r}: rename one of them"
        )
    return Task(
        task_id=str(meta["instance_id"]),
        repo=str(meta["repo"]),
        version=str(meta.get("version", "")),
        base_commit=str(meta["base_commit"]),
        problem_statement=read_file(folder / "problem_statement.md"),
        image=str(meta["image"]),
        workdir=str(meta.get("workdir") or "/testbed"),
        image_context=str(folder) if (folder / "Dockerfile").is_file() else None,
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises FormatError."""
    import yaml

    try:
        value = yaml.safe_load(read_file(path))
    except yaml.YAMLError as error:
        raise FormatError(f"{path} is not YAML: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a mapping, found {type(value).__name__}")
    return value


def read_file(path: Path) -> str:
    """The text of a file of a task, CRLF kept, for a patch must stay as it is. Raises FormatError."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read {path}: {error}: the task is incomplete, make it again") from error


def unknown_task(task_id: str, known: Iterable[str], where: str) -> UnknownTask:
    """The error for an id that is not there, with the ids that look like it."""
    known = sorted(known)
    close = difflib.get_close_matches(task_id, known, n=3, cutoff=0.5) or known[:3]
    return UnknownTask(
        f"no task {task_id!r} in {where} ({len(known)} tasks): did you mean {' or '.join(close) or 'another repository'}?"
    )
