"""`swe-srl tasks`: make, check, import and list tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from swe_srl.cli import plain_typer
from swe_srl.cli.options import Boxes, MaxTasks

app = plain_typer(no_args_is_help=True, help="Make, import, check and list tasks.")

TasksArgument = Annotated[Path, typer.Argument(help="A task repository.", metavar="TASKS")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Boxes at a time.")]


@app.command()
def make(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Names of bundled recipes (see `tasks recipes`), TOML files, or projects: a git repository (path or URL), a folder, a source distribution.",
            metavar="RECIPE|PROJECT...",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The task repository to make, or to go on with.")],
    num: Annotated[
        int | None, typer.Option(min=1, help="Tasks of each, in place of a recipe's own number or 10.")
    ] = None,
    workers: WorkersOption = 2,
    mine: Annotated[
        bool, typer.Option(help="Of a git repository: commits that change tests and code, in place of planted bugs.")
    ] = False,
    revision: Annotated[str, typer.Option(help="Of a git repository: a commit, branch or tag.")] = "HEAD",
    needs: Annotated[
        list[str] | None,
        typer.Option("--with", help="A requirement of a project's tests that it does not state; may be given again."),
    ] = None,
    tests: Annotated[
        list[str] | None, typer.Option(help="A folder or file of tests, where they are not found; may be given again.")
    ] = None,
) -> None:
    """Plant bugs in real projects, or mine their commits, and keep those that their own tests show."""
    from swe_srl.cli.console import progress, say
    from swe_srl.making.archive import is_source
    from swe_srl.making.auto import recipe_for
    from swe_srl.making.make import make_tasks
    from swe_srl.making.mine import mine_tasks
    from swe_srl.making.recipe import load_recipe

    for target in targets:
        if is_source(target) and not target.endswith(".toml"):
            say(f"looking at {target}: its tests, and what they need")
            recipe = recipe_for(
                target, out, num_tasks=num or 10, revision=revision, needs=needs or (), tests=tests or ()
            )
            say(
                f"{recipe.package}: {len(recipe.deselect)} tests do not pass and are not used; the recipe is in {out}/recipes"
            )
        else:
            recipe = load_recipe(target)
        with progress(
            f"{'mining' if mine else 'planting bugs in'} {recipe.package}", num or recipe.num_tasks
        ) as advance:
            if mine:
                made = mine_tasks(recipe, out, num=num or recipe.num_tasks, workers=workers, progress=advance)
            else:
                made = make_tasks([recipe], out, num=num, workers=workers, progress=advance)[0]
        say(
            f"{recipe.package}: {len(made.task_ids)} tasks of {made.num_tried} {'commits' if mine else 'mutations'} tried"
        )
        if len(made.task_ids) < (num or recipe.num_tasks):
            say(f"{recipe.package}: no more could be made")
        for reason, number in sorted(made.refused.items(), key=lambda item: -item[1]):
            say(f"  {number} not: {reason}")
    say(f"next: swe-srl tasks check {out}")


@app.command()
def check(
    tasks: TasksArgument,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each of gold patch and no patch.")] = 2,
    workers: WorkersOption = 2,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be given again.")] = None,
    max_tasks: MaxTasks = None,
    box: Boxes = None,
) -> None:
    """See that the gold patch resolves each task, that no patch does not, and that repeats agree."""
    from swe_srl.benchmarks.load import load_tasks
    from swe_srl.cli.console import progress, say
    from swe_srl.errors import ApparatusError
    from swe_srl.making.check import check_tasks
    from swe_srl.runtime.base import SandboxConfig
    from swe_srl.settings import apply_overrides, build

    sandbox = build(SandboxConfig, apply_overrides({}, box or []), "--box")
    ids = task or ([item.task_id for item in load_tasks(tasks)[:max_tasks]] if max_tasks else ())
    with progress("checking tasks") as advance:
        found = check_tasks(tasks, ids=ids, repeats=repeats, workers=workers, sandbox=sandbox, progress=advance)
    for task_id in found.flaky:
        say(f"not as wanted: {task_id} (listed in {tasks / 'flaky.txt'}, used by nobody)")
    for failure in found.failures:
        say(f"not run: {failure}")
    say(f"{len(found.good)} of {found.num_tasks} tasks: gold resolves, no patch does not, {repeats} repeats agree")
    if found.failures:
        raise ApparatusError(
            f"{len(found.failures)} runs of tests failed for no fault of the tasks: call again to repeat them"
        )


@app.command(name="import")
def import_(
    rows: Annotated[
        str,
        typer.Argument(
            help="Rows of SWE-bench, SWE-Gym, SWE-smith, SWE-rebench, R2E-Gym (JSONL, JSON, parquet, or a Hugging Face id), or Harbor tasks.",
            metavar="ROWS",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The task repository to write.")],
    split: Annotated[str, typer.Option(help="Split that the tasks are put in.")] = "test",
    build: Annotated[
        bool,
        typer.Option(
            help="Build each image from the repository and what it needed at its time, in place of pulling the row's."
        ),
    ] = False,
    build_on: Annotated[
        str, typer.Option(help="With --build: the image to build on; python:<version> of the time by default.")
    ] = "",
    clone_from: Annotated[
        str, typer.Option(help="With --build: where repositories are; {repo} is owner/name. GitHub by default.")
    ] = "",
) -> None:
    """Write the rows of another benchmark as a task repository."""
    from swe_srl.cli.console import say
    from swe_srl.making.environment import dockerfile_of
    from swe_srl.making.exchange import import_rows

    builder = (lambda row: dockerfile_of(row, base=build_on, clone_from=clone_from)) if build else None
    imported = import_rows(rows, out, split=split, build=builder)
    for task_id, reason in imported.skipped.items():
        say(f"not imported: {task_id}: {reason}")
    say(f"{len(imported.task_ids)} of {len(imported.task_ids) + len(imported.skipped)} rows imported")


@app.command(name="rows")
def rows_(tasks: TasksArgument) -> None:
    """Print the tasks with their answers as SWE-bench v5 rows, which `swebench eval` reads."""
    from swe_srl.making.exchange import export_rows

    for line in export_rows(tasks):
        sys.stdout.write(f"{line}\n")


@app.command()
def decontaminate(
    tasks: TasksArgument,
    against: Annotated[
        list[str],
        typer.Option(
            help="Tasks that are evaluated on: a task repository, rows, or a Hugging Face id; may be given again."
        ),
    ],
    same_repository: Annotated[
        bool, typer.Option(help="Also leave out all tasks of a repository that is evaluated on.")
    ] = True,
) -> None:
    """Leave out the tasks that are too like an evaluation set: its repositories, its instances, its solutions."""
    from swe_srl.cli.console import say
    from swe_srl.making.decontaminate import decontaminate as leave_out

    found = leave_out(tasks, against, by_repository=same_repository)
    for task_id, reason in found.items():
        say(f"left out: {task_id}: {reason}")
    say(f"{len(found)} tasks are listed in {tasks / 'excluded.txt'}, used by nobody")


@app.command()
def harbor(
    tasks: TasksArgument,
    out: Annotated[Path, typer.Option(help="Folder for the Harbor tasks.")],
) -> None:
    """Write the tasks with their answers as Harbor tasks."""
    from swe_srl.cli.console import say
    from swe_srl.making.exchange import export_harbor

    written = export_harbor(tasks, out)
    for task_id, reason in written.skipped.items():
        say(f"not written: {task_id}: {reason}")
    say(f"{len(written.task_ids)} of {len(written.task_ids) + len(written.skipped)} tasks written to {out}")


@app.command(name="list")
def list_(tasks: Annotated[Path, typer.Argument(help="A task repository, or rows.", metavar="TASKS")]) -> None:
    """List tasks: id, repository, and the first line of the problem."""
    from swe_srl.benchmarks.load import load_tasks
    from swe_srl.cli.console import table

    found = load_tasks(tasks)
    table(
        f"{len(found)} tasks in {tasks}",
        ("id", "repository", "problem"),
        [(t.task_id, t.repo, _headline(t.problem_statement)) for t in found],
    )


@app.command()
def recipes() -> None:
    """List the bundled recipes."""
    from swe_srl.cli.console import table
    from swe_srl.making.recipe import bundled, load_recipe

    found = [load_recipe(name) for name in bundled()]
    table(
        "Bundled recipes",
        ("name", "version", "split", "tasks", "licence"),
        [(r.package, r.version, r.split, str(r.num_tasks), r.licence) for r in found],
    )


def _headline(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:80]
