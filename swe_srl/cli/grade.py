"""`swe-srl grade`: predictions → verdicts, each in a fresh box."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from swe_srl.cli.options import Address, Boxes, ExecutorName, Out, Tasks, executor_of


def grade(
    predictions: Annotated[
        Path,
        typer.Argument(help="Predictions: JSONL, JSON, .pred, or the --out of `swe-srl predict`.", show_default=False),
    ],
    tasks: Tasks,
    out: Out,
    workers: Annotated[int, typer.Option(min=1, help="Boxes at the same time, on each machine.")] = 2,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that the tests of one task may take.")] = 1800.0,
    rules: Annotated[
        Literal["strict", "swebench"],
        typer.Option(
            help="strict: two witnesses, and tests that a patch changed are set back; swebench: as swebench 5 judges."
        ),
    ] = "strict",
    box: Boxes = None,
    executor: ExecutorName = "threads",
    address: Address = "",
) -> None:
    """Apply each patch in a fresh box, run the trusted tests, and judge by SWE-bench's rules and our own."""
    from swe_srl.benchmarks.load import excluded
    from swe_srl.cli.console import progress, say, table
    from swe_srl.errors import ApparatusError
    from swe_srl.grading.grader import Grader
    from swe_srl.grading.predictions import read_predictions
    from swe_srl.grading.run import grade_all
    from swe_srl.runtime.base import SandboxConfig
    from swe_srl.settings import apply_overrides, build
    from swe_srl.store import Run

    place = executor_of(executor, address)
    unused = excluded(tasks)
    found = read_predictions(predictions)
    left_out = [item for item in found if item.task_id in unused]
    found = [item for item in found if item.task_id not in unused]
    for item in left_out:
        say(f"not graded: {item.task_id}: {unused[item.task_id]}")
    grader = Grader(tasks, build(SandboxConfig, apply_overrides({}, box or []), "--box"), timeout, rules=rules)
    with progress("grading", len(found)) as advance:
        verdicts = grade_all(found, grader, Run(out), source=tasks, workers=workers, executor=place, progress=advance)
    statuses = [verdict.status for verdict in verdicts]
    table(
        "verdicts",
        ["status", "predictions"],
        [[status, str(statuses.count(status))] for status in dict.fromkeys(sorted(statuses))],
    )
    for verdict in verdicts:
        if verdict.status == "tampered":
            say(f"tampered: {verdict.task_id} ({verdict.model}): {verdict.note}")
    failures = [verdict for verdict in verdicts if verdict.status == "infra_failure"]
    if failures:
        raise ApparatusError(
            f"{len(failures)} of {len(verdicts)} predictions could not be graded, the first ({failures[0].task_id}) because: "
            f"{failures[0].note}: the other verdicts are in {out}; call the same command again for the rest"
        )
    say(f"verdicts and SWE-bench's files are in {out}; next: swe-srl report {out} --out {out}/report")
