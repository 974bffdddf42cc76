"""`swe-srl report`: run directories → report.json, report.md and index.html."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="The --out of predict, grade and agree, in the order to compare them; of train, replay and teach, for the page.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory for report.json, report.md and index.html.", show_default=False)],
    pool: Annotated[
        bool,
        typer.Option("--pool", help="Runs of one model (other seeds) are one entry: further attempts at its tasks."),
    ] = False,
    best_of: Annotated[
        list[str] | None,
        typer.Option(
            help="Choose one of several attempts by votes, or by a reward as patch or similarity; may be given again.",
            show_default=False,
        ),
    ] = None,
    tasks: Annotated[
        list[Path] | None,
        typer.Option(
            help="Where the tasks are, for their issues and projects; may be given again.", show_default=False
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the report.")] = "swe-srl report",
) -> None:
    """Say what every model did, with each denominator, 95 % intervals, and paired differences between neighbours."""
    from swe_srl.benchmarks.load import load_tasks
    from swe_srl.cli.console import say, table
    from swe_srl.reporting.collect import collect
    from swe_srl.reporting.page.build import write_page
    from swe_srl.reporting.page.material import gather
    from swe_srl.reporting.render import attempt_rows, paired_rows, summary_table, write_report
    from swe_srl.reporting.sources import recognise
    from swe_srl.reporting.summarise import summarise
    from swe_srl.reporting.teachers import read_replays, read_teaching, replay_rows, teaching_rows
    from swe_srl.reporting.training import read_training, training_rows

    sources = recognise(runs)
    entries = collect(sources.evaluations, pool=pool)
    material = gather(
        entries,
        read_training(sources.training),
        read_replays(sources.replays),
        read_teaching(sources.teaching),
        [task for path in tasks or () for task in load_tasks(path)],
    )
    result = summarise(
        entries,
        title=title,
        best_of=best_of or (),
        training=training_rows(material.training),
        replays=replay_rows(material.replays),
        teaching=teaching_rows(material.teaching),
    )
    paths = [*write_report(result, out), write_page(result, material, out)]
    head, *lines = summary_table(result)
    if lines:
        table(title, head, lines)
    if several := attempt_rows(result):
        table("several attempts", ["model", "measure", "share of tasks [95 %]"], several)
    if result.paired:
        table("paired differences", ["first → second", "measure", "difference [95 %]", "n", "p"], paired_rows(result))
    say(f"written: {', '.join(map(str, paths))}")
