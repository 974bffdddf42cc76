"""Stored test logs → verdicts; no box is opened, and the stored verdicts are compared with ours.

A log stands in a folder named for its task, as SWE-bench writes it: `…/<model>/<id>/{test_output.txt,report.json,patch.diff}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from swe_srl.benchmarks.grading_spec import load_specs
from swe_srl.benchmarks.load import load_tasks
from swe_srl.errors import FormatError, UnknownTask, UserError
from swe_srl.grading.grade import EvalLog, Graded, judge_run, verdict_without_tests
from swe_srl.grading.papers import write_run_reports
from swe_srl.grading.rules import PATCH_APPLY_FAILED, EvalReport
from swe_srl.grading.run import SETTINGS, VERDICTS, key_of
from swe_srl.schema import GradingSpec, Prediction, Task, Verdict
from swe_srl.store import Run, write_json

_TIMED_OUT = re.compile(r"\n\nTimeout error: [\d.]+ seconds exceeded\.\s*\Z")


class Regraded(NamedTuple):
    """Our verdict on a stored log, and the stored one."""

    folder: Path
    verdict: Verdict
    stored: bool | None
    """`resolved` of the stored report.json; None where there is none."""
    differences: tuple[str, ...] = ()
    """Where its `tests_status` is not ours, and why."""

    @property
    def agrees(self) -> bool:
        """Nothing is stored, or the same as ours."""
        return self.stored is None or self.stored == self.verdict.resolved


def regrade(
    logs: str | Path, source: str | Path, run: Run, *, progress: Callable[[int, int], None] | None = None
) -> list[Regraded]:
    """Judge every stored log below `logs` by the answers in `source`; verdicts go to `run`.

    Logs of the 2024 harness have no markers and are read whole. The model is named for the folder that holds the task's.
    Raises UserError where there are no logs, UnknownTask where a folder's task is not in `source`.
    """
    folders = find_logs(Path(logs))
    ids = sorted({folder.name for folder in folders})
    specs = load_specs(source)
    unknown = [task_id for task_id in ids if task_id not in specs]
    if unknown:
        raise UnknownTask(
            f"{logs}: no task {unknown[0]!r} in {source}, and {len(unknown) - 1} more: give the --tasks these logs were made with"
        )
    tasks = {task.task_id: task for task in load_tasks(source, ids)}
    found = []
    with run.exclusive():
        before = {key_of(verdict) for verdict in run.read(VERDICTS, Verdict)}
        with run.append(VERDICTS, Verdict) as verdicts:
            for number, folder in enumerate(folders, start=1):
                regraded = regrade_folder(folder, specs[folder.name], tasks[folder.name])
                if key_of(regraded.verdict) not in before:
                    verdicts.write(regraded.verdict)
                found.append(regraded)
                if progress:
                    progress(number, len(folders))
        _write_summary(run, source, ids, found)
    return found


def find_logs(root: Path) -> list[Path]:
    """The folders below `root`, or `root` itself, that hold a test log or the log of a patch that did not apply."""
    if not root.is_dir():
        raise UserError(f"{root} is no directory: give one with folders <task id>/test_output.txt below it")
    found = {path.parent for name in ("test_output.txt", "run_instance.log") for path in root.rglob(name)}
    if not found:
        raise UserError(f"{root}: no test_output.txt below it: give a directory of SWE-bench logs")
    return sorted(found)


def regrade_folder(folder: Path, spec: GradingSpec, task: Task) -> Regraded:
    """The verdict on one stored log. Raises FormatError when its report.json cannot be read."""
    patch = _text(folder / "patch.diff")
    prediction = Prediction(task_id=spec.task_id, model=folder.parent.name, patch=patch, exit_status="")
    log_path = folder / "test_output.txt"
    stored = _stored_report(folder / "report.json", spec.task_id)
    differences: tuple[str, ...] = ()
    if log_path.is_file():
        log = _text(log_path)
        run = EvalLog(log, timed_out=bool(_TIMED_OUT.search(log)))
        graded = judge_run(prediction, spec, run, version=task.version, whole_log=True)
        verdict = graded.verdict
        differences = tuple(_differences(stored, graded))
    elif PATCH_APPLY_FAILED in _text(folder / "run_instance.log"):
        verdict = verdict_without_tests(prediction, spec, "patch_failed", note="the stored log says so")
    else:
        verdict = verdict_without_tests(prediction, spec, "infra_failure", note="no test log was stored")
    return Regraded(folder, verdict, None if stored is None else bool(stored["resolved"]), differences)


def _differences(stored: EvalReport | None, graded: Graded) -> Iterator[str]:
    """Each place where a stored `tests_status` is not that of `graded`, with the reason."""
    theirs = (stored or {}).get("tests_status")
    if theirs is None:
        return
    report: EvalReport = next(iter(graded.report.values()), {})
    ours = report.get("tests_status")
    if ours is None:
        num = sum(len(tests) for kind in theirs.values() for tests in kind.values())
        yield f"all {num} tests: ours has none: {graded.verdict.note or 'the run timed out'}"
        return
    for kind in ("FAIL_TO_PASS", "PASS_TO_PASS"):
        before, after = _places(theirs.get(kind, {})), _places(ours.get(kind, {}))
        for test in sorted(set(before) | set(after)):
            if before.get(test) != after.get(test):
                reason = _reason(test, before.get(test), after.get(test))
                yield f"{kind} {test}: {before.get(test, 'in no list')}, now {after.get(test, 'in no list')}: {reason}"


def _places(lists: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {test: place for place, tests in lists.items() for test in tests}


def _reason(test: str, before: str | None, after: str | None) -> str:
    if test.count("[") > test.count("]"):
        return "its id is cut off; swebench 5 looks for one that begins like it"
    if before is None:
        return "it was skipped; swebench 4 put such a test in no list"
    if after is None:
        return "the tasks given do not expect it"
    return "the parser reads its line in another way"


def _write_summary(run: Run, source: str | Path, ids: Sequence[str], found: Sequence[Regraded]) -> None:
    write_json(
        run.path / SETTINGS,
        {
            "tasks": str(source),
            "task_ids": list(ids),
            "submitted": [[item.verdict.task_id, item.verdict.model] for item in found],
        },
    )
    stored = [item for item in found if item.stored is not None]
    write_json(
        run.path / "regrade.json",
        {
            "num_logs": len(found),
            "num_stored_verdicts": len(stored),
            "num_agree": sum(item.agrees for item in stored),
            "disagree": [
                {
                    "folder": str(item.folder),
                    "stored": item.stored,
                    "ours": item.verdict.status,
                    "note": item.verdict.note,
                }
                for item in stored
                if not item.agrees
            ],
            "tests_status_differs": {str(item.folder): list(item.differences) for item in found if item.differences},
        },
    )
    write_run_reports(run, [item.verdict for item in found], ids)


def _stored_report(path: Path, task_id: str) -> EvalReport | None:
    """What SWE-bench's report.json says of the task, or SWE-smith's, which is flat; None where there is none."""
    if not path.is_file():
        return None
    try:
        report = json.loads(_text(path))
        found: EvalReport = report.get(task_id, report)
        bool(found["resolved"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path}: not a SWE-bench report.json with `resolved` for {task_id}: mend or remove it"
        ) from error
    return found


def _text(path: Path) -> str:
    """The text of a file as it stands, carriage returns included; empty where there is none."""
    return path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
