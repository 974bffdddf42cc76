"""The command line: words in, an exit code out. One verb, one file; heavy imports stand inside the verb.

Exit codes: 0 the run is finished, whatever the resolve rate; 2 the input is wrong; 3 the apparatus failed.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

VERBS: dict[str, tuple[str, str]] = {
    "doctor": ("swe_srl.cli.doctor:doctor", "What works on this machine, and what to do about the rest."),
    "tasks": ("swe_srl.cli.tasks:app", "Make, import, check and list tasks."),
    "teach": ("swe_srl.cli.teach:teach", "Tasks → accepted trajectories, through a teacher's API."),
    "import": ("swe_srl.cli.import_:import_", "Trajectories of another tool → ours."),
    "replay": ("swe_srl.cli.replay:replay", "Trajectories → steps, every command run again and compared."),
    "export": ("swe_srl.cli.export:export", "Trajectories → another tool's format, with a dataset card."),
    "reward": ("swe_srl.cli.reward:reward", "Pairs of actions → rewards; needs neither torch nor docker."),
    "train": (
        "swe_srl.cli.train:train",
        "Steps → checkpoint: SFT or SRL; tasks → checkpoint: RLVR; or several in a chain.",
    ),
    "study": ("swe_srl.cli.study:study", "Ways to train, compared with equal budgets and several seeds."),
    "agree": ("swe_srl.cli.agree:agree", "A model's next actions beside a teacher's, on held-out steps."),
    "predict": ("swe_srl.cli.predict:predict", "A model acts in boxes → predictions."),
    "grade": ("swe_srl.cli.grade:grade", "Predictions → verdicts, each in a fresh box."),
    "regrade": ("swe_srl.cli.regrade:regrade", "Stored test logs → verdicts; needs no docker."),
    "report": ("swe_srl.cli.report:report", "Runs → report.json, report.md and a page."),
    "demo": ("swe_srl.cli.demo:demo", "The whole pipeline, small and real."),
    "clean": ("swe_srl.cli.clean:clean", "Remove boxes, images and caches that swe-srl made."),
}
"""Each verb: where it is defined, and its line in `--help`. A verb's module is imported when the verb is used."""

plain_typer = functools.partial(
    typer.Typer, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
)
"""A typer without rich, which would double the time of `--help`."""


class LazyGroup(TyperGroup):
    """A command group that imports a verb only when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The verbs, in pipeline order."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of one verb; for `--help` of the group, a stand-in with the verb's one line."""
        if cmd_name not in VERBS:
            return None
        target, line = VERBS[cmd_name]
        if not ctx.meta.get("verb_is_called"):
            return _placeholder(cmd_name, line)
        module, _, name = target.partition(":")
        found = getattr(importlib.import_module(module), name)
        if not isinstance(found, typer.Typer):
            app = plain_typer()
            app.command(name=cmd_name, help=found.__doc__ or line)(found)
            found = app
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that is called."""
        ctx.meta["verb_is_called"] = True
        return super().resolve_command(ctx, args)


def _placeholder(name: str, line: str) -> Any:
    app = plain_typer()
    app.command(name=name, help=line)(lambda: None)
    return typer.main.get_command(app)


app = plain_typer(cls=LazyGroup, no_args_is_help=True)


@app.callback()
def root() -> None:
    """Train coding agents on a teacher's replayed actions, and measure them so that the number can be trusted."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. An error of ours is one sentence on stderr, never a traceback."""
    from swe_srl.errors import SweSrlError

    try:
        app(args=None if arguments is None else list(arguments), standalone_mode=True)
    except SweSrlError as error:
        sys.stderr.write(f"swe-srl: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        sys.stderr.write(
            f"swe-srl: {error.strerror or error}{f': {error.filename}' if error.filename else ''}: nothing written before is lost\n"
        )
        sys.exit(3)
    except KeyboardInterrupt:
        sys.stderr.write("swe-srl: interrupted: call the same command again to go on\n")
        sys.exit(130)
