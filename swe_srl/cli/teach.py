"""`swe-srl teach`: tasks → accepted trajectories, through a teacher's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from swe_srl.cli.options import Ids, MaxTasks, Out, Settings, Tasks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from swe_srl.schema import Task
    from swe_srl.teaching.teach import TeachConfig, TeachSummary

ORACLE = "oracle"


def teach(
    *,
    tasks: Tasks,
    model: Annotated[
        str,
        typer.Option(
            help="Name of the teacher at its endpoint; `oracle` without --base-url is the built-in one.",
            show_default=False,
        ),
    ],
    out: Out,
    base_url: Annotated[
        str,
        typer.Option(
            help="OpenAI-compatible endpoint; $OPENAI_BASE_URL by default.",
            envvar="OPENAI_BASE_URL",
            show_default=False,
        ),
    ] = "",
    api_key_env: Annotated[str, typer.Option(help="Environment variable that holds the key.")] = "OPENAI_API_KEY",
    budget_usd: Annotated[
        float | None, typer.Option(min=0, help="Stop before more than this is spent; needs prices.", show_default=False)
    ] = None,
    budget_tokens: Annotated[
        int | None, typer.Option(min=0, help="Stop before more tokens than this are used.", show_default=False)
    ] = None,
    price_in: Annotated[float, typer.Option(min=0, help="USD per million prompt tokens.")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0, help="USD per million completion tokens.")] = 0.0,
    samples: Annotated[int, typer.Option(min=1, help="Trajectories per task.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Episodes at the same time.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the sampling, and of the built-in teacher.")] = 0,
    ids: Ids = None,
    max_tasks: MaxTasks = None,
    set_: Settings = None,
) -> None:
    """Let a teacher work on every task, and keep the trajectories whose patch resolves it."""
    from swe_srl.benchmarks.load import load_tasks
    from swe_srl.settings import apply_overrides, build
    from swe_srl.teaching.teach import TeachConfig

    settings = {
        "samples": samples,
        "workers": workers,
        "sampling": {"temperature": 0.7, "max_new_tokens": 2048, "seed": seed},
        "budget": {"max_usd": budget_usd, "max_tokens": budget_tokens, "price_in": price_in, "price_out": price_out},
    }
    config = build(TeachConfig, apply_overrides(settings, set_ or []), origin="the options of teach")
    _check(config, model, base_url, api_key_env)
    chosen = load_tasks(tasks, ids or [])[:max_tasks]
    endpoint = {"model": model, "api_key_env": api_key_env} | ({"base_url": base_url} if base_url else {})
    _tell(_teach(chosen, config, endpoint, tasks, out), out, tasks)


def _teach(
    chosen: Sequence[Task], config: TeachConfig, endpoint: dict[str, str], tasks: Path, out: Path
) -> TeachSummary:
    """Connect teacher, boxes and grader; start the built-in teacher where it is meant."""
    from contextlib import ExitStack

    from swe_srl.agent import open_task_box
    from swe_srl.cli.console import progress
    from swe_srl.grading.grader import Grader
    from swe_srl.policy.endpoint import EndpointConfig
    from swe_srl.settings import build
    from swe_srl.store import Run
    from swe_srl.teaching.teach import teach as teach_all

    grader = Grader(tasks, config.sandbox)
    with ExitStack() as stack:
        if endpoint["model"] == ORACLE and "base_url" not in endpoint:
            from swe_srl.testing.oracle import serve_oracle

            endpoint = endpoint | {"base_url": stack.enter_context(serve_oracle(tasks, config.sampling.seed))}
        policy = build(EndpointConfig, endpoint, origin="the options of teach").build()
        stack.callback(policy.close)
        advance = stack.enter_context(progress("teaching", len(chosen) * config.samples))
        return teach_all(
            chosen,
            config,
            Run(out),
            policy=policy,
            open_box=lambda task: open_task_box(task, config.sandbox, "teach"),
            grade=lambda prediction: grader.grade(prediction).verdict,
            progress=advance,
        )


def _check(config: TeachConfig, model: str, base_url: str, api_key_env: str) -> None:
    """Refuse what could not work before anything is begun. Raises ConfigError."""
    import os

    from swe_srl.errors import ConfigError

    budget = config.budget
    if budget.max_usd is not None and not budget.price_in and not budget.price_out:
        raise ConfigError(
            "--budget-usd needs --price-in and --price-out (USD per million tokens), else nothing would ever be counted"
        )
    if not base_url and model != ORACLE and not os.environ.get(api_key_env):
        raise ConfigError(
            f"no key in ${api_key_env} for the teacher {model!r}: set it, or give --base-url of a server of your own"
        )


def _tell(summary: TeachSummary, out: Path, tasks: Path) -> None:
    from swe_srl.cli.console import say, table
    from swe_srl.errors import ApparatusError

    rows = [["wanted", summary.num_wanted], ["accepted", summary.num_accepted], ["rejected", summary.num_rejected]]
    rows += [[f"  {reason}", count] for reason, count in summary.rejected_because.items()]
    rows += [
        ["left by the budget", summary.num_not_begun_or_stopped],
        ["left by the apparatus", summary.num_infra_failures],
    ]
    table("trajectories", ["", "number"], [[str(name), str(count)] for name, count in rows])
    usage = summary.usage
    say(f"{usage.prompt_tokens} prompt and {usage.completion_tokens} completion tokens, {usage.cost_usd:.4f} USD")
    if summary.num_infra_failures:
        raise ApparatusError(
            f"{summary.num_infra_failures} trajectories could not be made, the first because: {summary.infra_failure}: "
            f"the others are in {out}; call the same command again for the rest"
        )
    if summary.exit_status == "budget":
        say("the budget is reached; call the same command with a larger one to go on")
    say(f"trajectories are in {out}; next: swe-srl replay {out}/trajectories.jsonl --tasks {tasks} --out {out}-steps")
