"""Graded predictions → the files that SWE-bench's own tools write and read (formats of swebench 5.0.2).

```
RUN/logs/run_evaluation/<run id>/run.json
RUN/logs/run_evaluation/<run id>/<model, / as __>/<instance id>/{report.json,test_output.txt,eval.sh,patch.diff,run_instance.log}
RUN/<model, / as __>.<run id>.json
```
SWE-bench knows one patch of a model for a task. A further attempt goes under a name of its own, `<model>.attempt-1`, as if
another model had made it.
The run id is the name of the run directory, so that `cd RUN && swebench report <run id>` finds its files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swe_srl.grading.grade import Graded
from swe_srl.schema import Prediction, Verdict
from swe_srl.store import Run, write_json, write_text


def model_folder(model: str, attempt: int = 0) -> str:
    """A model's name as SWE-bench writes it in paths."""
    return model.replace("/", "__") + (f".attempt-{attempt}" if attempt else "")


def logs_root(run: Run) -> Path:
    """Where the logs of this run's predictions are."""
    return run.path / "logs" / "run_evaluation" / run.path.resolve().name


def instance_folder(run: Run, model: str, task_id: str, attempt: int = 0) -> Path:
    """Where the papers of one prediction are."""
    return logs_root(run) / model_folder(model, attempt) / task_id


def write_metadata(run: Run, source: str | Path) -> None:
    """`run.json`: which tasks this run is graded against. The first start is kept."""
    path = logs_root(run) / "run.json"
    if path.is_file():
        return
    source = Path(source).resolve()
    write_json(
        path,
        {
            "dataset": str(source),
            "split": "test",
            "task_repo": str(source) if source.is_dir() else None,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def write_papers(run: Run, prediction: Prediction, graded: Graded, eval_script: str) -> None:
    """Write one prediction's papers in place of older ones; none where the patch is empty, as SWE-bench does."""
    folder = instance_folder(run, prediction.model, prediction.task_id, prediction.attempt)
    for stale in ("report.json", "test_output.txt", "run_instance.log"):
        (folder / stale).unlink(missing_ok=True)
    if graded.verdict.status == "empty_patch":
        return
    write_text(folder / "patch.diff", prediction.patch)
    write_text(
        folder / "run_instance.log",
        f"{graded.instance_log}\nverdict: {graded.verdict.status} {graded.verdict.note}".strip() + "\n",
    )
    if graded.log:
        write_text(folder / "eval.sh", eval_script)
        write_text(folder / "test_output.txt", graded.log)
    if graded.report:
        write_text(folder / "report.json", json.dumps(graded.report, indent=4))


def write_run_reports(run: Run, verdicts: Iterable[Verdict], task_ids: Iterable[str]) -> list[Path]:
    """SWE-bench's run report, one for each model and attempt; returns their paths."""
    by_model: dict[tuple[str, int], dict[str, Verdict]] = {}
    for verdict in verdicts:
        by_model.setdefault((verdict.model, verdict.attempt), {})[verdict.task_id] = verdict
    known = set(task_ids)
    paths = []
    for (model, attempt), found in sorted(by_model.items()):
        path = run.path / f"{model_folder(model, attempt)}.{run.path.resolve().name}.json"
        write_text(path, json.dumps(run_report(run, model, found, known), indent=4) + "\n")
        paths.append(path)
    return paths


def run_report(run: Run, model: str, verdicts: Mapping[str, Verdict], task_ids: set[str]) -> dict[str, Any]:
    """The content of the run report of one model's attempt, schema_version 2, by the rules of swebench/harness/reporting.py."""
    from swebench.harness.infra_failure import TIER_ENVIRONMENT, classify_logs

    resolved = {id_ for id_, verdict in verdicts.items() if verdict.status == "resolved"}
    unresolved = {id_ for id_, verdict in verdicts.items() if verdict.status in ("unresolved", "tampered")}
    empty = {id_ for id_, verdict in verdicts.items() if verdict.status == "empty_patch"}
    errors = set(verdicts) - resolved - unresolved - empty
    reasons: dict[str, str] = {}
    infra = {id_ for id_, verdict in verdicts.items() if verdict.status == "infra_failure"}
    for id_, verdict in verdicts.items():
        if verdict.status in ("infra_failure", "tampered"):
            reasons[id_] = verdict.note
    ambiguous: set[str] = set()
    for id_ in (unresolved | errors) - infra:
        folder = instance_folder(run, model, id_, verdicts[id_].attempt)
        found = classify_logs(folder / "test_output.txt", folder / "run_instance.log")
        if found:
            reasons.setdefault(id_, found[0])
            (infra if found[1] == TIER_ENVIRONMENT else ambiguous).add(id_)
    ids = {
        "completed": resolved | unresolved,
        "incomplete": task_ids - set(verdicts),
        "empty_patch": empty,
        "submitted": set(verdicts),
        "resolved": resolved,
        "unresolved": unresolved,
        "infra_failure": infra,
        "ambiguous_failure": ambiguous,
        "error": errors,
    }
    counted = (
        "submitted",
        "completed",
        "resolved",
        "unresolved",
        "infra_failure",
        "ambiguous_failure",
        "empty_patch",
        "error",
    )
    return {
        "total_instances": len(task_ids),
        **{f"{name}_instances": len(ids[name]) for name in counted},
        **{f"{name}_ids": sorted(found) for name, found in ids.items()},
        "failure_reasons": dict(sorted(reasons.items())),
        "schema_version": 2,
    }
