"""`swe-srl regrade`: stored test logs → verdicts, without docker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def regrade(
    logs: Annotated[
        Path, typer.Argument(help="Directory with <task id>/test_output.txt somewhere below it.", show_default=False)
    ],
    tasks: Annotated[Path, typer.Option(help="Task repository, or rows (JSONL, JSON, parquet).", show_default=False)],
    out: Annotated[Path, typer.Option(help="Run directory for the verdicts.", show_default=False)],
) -> None:
    """Judge stored test logs by SWE-bench's rules, and compare with the verdicts stored beside them."""
    from swe_srl.cli.console import progress, say, table
    from swe_srl.grading.regrade import regrade as regrade_logs
    from swe_srl.store import Run

    with progress("regrading") as advance:
        found = regrade_logs(logs, tasks, Run(out), progress=advance)
    statuses = [item.verdict.status for item in found]
    table(
        "verdicts",
        ["status", "logs"],
        [[status, str(statuses.count(status))] for status in dict.fromkeys(sorted(statuses))],
    )
    for item in found:
        for difference in item.differences:
            say(f"{item.folder.name}: {difference}")
    stored = [item for item in found if item.stored is not None]
    say(
        f"{sum(item.agrees for item in stored)} of {len(stored)} stored verdicts agree with ours; details in {out}/regrade.json"
    )
