"""`swe-srl study`: a controlled comparison of ways to train, in one config, resumed cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swe_srl.cli.options import Settings

if TYPE_CHECKING:
    from swe_srl.study.config import StudyConfig
    from swe_srl.study.plan import Plan
    from swe_srl.study.table import StudyTable


def study(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="A preset (study, study-cpu) or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Study directory; called again with the same one, the study goes on.")],
    steps: Annotated[
        list[Path] | None, typer.Option(help="Steps to train on; may be given more than once.", show_default=False)
    ] = None,
    tasks: Annotated[str, typer.Option(help="The tasks of those steps; RLVR works on them.", show_default=False)] = "",
    heldout_steps: Annotated[
        str, typer.Option(help="Steps at which agreement with the teacher is measured.", show_default=False)
    ] = "",
    heldout_tasks: Annotated[str, typer.Option(help="The tasks of those; none trained on.", show_default=False)] = "",
    set_: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and what each takes; run none.")] = False,
) -> None:
    """Train a student in several ways, each with several seeds and the same budget, and say which is better, by how much and how surely.

    Writes study.json, study.md and study.svg, and in models/ and cells/ the runs that they come from.
    """
    from swe_srl.settings import apply_overrides, build, read_toml
    from swe_srl.study.config import StudyConfig
    from swe_srl.study.plan import make_plan

    given = {
        "steps": [str(path) for path in steps or []], "tasks": tasks, "heldout_steps": heldout_steps, "heldout_tasks": heldout_tasks,
    }  # fmt: skip
    table = apply_overrides(read_toml(preset), set_ or []) | {key: value for key, value in given.items() if value}
    config = build(StudyConfig, table, origin=preset)
    _require_data(config)
    plan = make_plan(config)
    _show_costs(plan)
    if not dry_run:
        _run(plan, out)


def _require_data(config: StudyConfig) -> None:
    """Raises ConfigError where something to train on, or to measure with, is not given or not there."""
    from swe_srl.errors import ConfigError

    for name in ("steps", "tasks", "heldout_steps", "heldout_tasks"):
        value = getattr(config, name)
        if not value:
            raise ConfigError(f"nothing is given as `{name}`: say it in the file, or with --{name.replace('_', '-')}")
    for path in (*config.steps, config.heldout_steps):
        if not Path(path).is_file():
            raise ConfigError(f"no file {path}: give the steps.jsonl that `swe-srl replay` wrote")


def _show_costs(plan: Plan) -> None:
    from swe_srl.cli.console import say, table
    from swe_srl.study.cost import costs

    found = costs(plan)
    rows = [
        [
            cell.arm,
            str(cell.seed),
            " → ".join(f"{stage.name} ({stage.num_updates})" for stage in stages) or "–",
            f"{sum(stage.tokens for stage in stages):,}",
            f"{sum(stage.tokens for stage in stages if not stage.is_shared):,}",
        ]
        for cell, stages in found.of_cell
    ]
    head = ["arm", "seed", "stages (updates at most)", "tokens, about", "of these not spent by a cell above"]
    table("cells", head, rows)
    say(f"{len(rows)} cells: {found.num_trainings} trainings, at most {found.num_measurements} measurements")
    if plan.config.budget_tokens is not None:
        say(f"each cell may spend {plan.config.budget_tokens:,} tokens, trained and sampled, over its stages")


def _run(plan: Plan, out: Path) -> None:
    from swe_srl.cli.console import say
    from swe_srl.errors import ApparatusError
    from swe_srl.store import Run
    from swe_srl.study.data import digests
    from swe_srl.study.measures import Measures
    from swe_srl.study.render import write_study
    from swe_srl.study.run import Study, in_a_process, remember
    from swe_srl.study.table import read_measured, tabulate

    run, measures = Run(out), Measures(plan.config)
    with run.exclusive():
        remember(plan, run, digests(plan.config))
        results, missing = Study(plan, out, in_a_process, say).run()
        cells = read_measured(results, out, measures)
        measured = {row.step_id for cell in cells for row in cell.steps.values()}
        table = tabulate(plan.config, cells, missing, constant=measures.of_a_constant(measured))
        paths = write_study(table, out)
    _show(table)
    say(f"written: {', '.join(map(str, paths))}")
    if missing:
        first = missing[0]
        raise ApparatusError(
            f"{len(missing)} of {len(plan.cells)} cells are missing, the first ({first.arm}, seed {first.seed}) because: {first.reason}: "
            f"the others are in {out}; call the same command again for the rest"
        )


def _show(result: StudyTable) -> None:
    from swe_srl.cli.console import table
    from swe_srl.study.render import DIFFERENCES, HEAD, arm_cells, comparison_cells, other_measures

    table(result.title, HEAD, map(arm_cells, result.arms))
    table("the same answers by other measures", *other_measures(result))
    if result.comparisons:
        table("differences", DIFFERENCES, map(comparison_cells, result.comparisons))
