"""`swe-srl teach`: tasks → accepted trajectories, through a teacher's API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_srl.cli.options import Ids, MaxTasks, Out, PriceIn, PriceOut, Prices, Settings, Tasks
from swe_srl.cli.teach_tables import tell_estimate, tell_summary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from swe_srl.policy.base import Policy
    from swe_srl.schema import Task
    from swe_srl.teaching.summary import TeachSummary
    from swe_srl.teaching.teach import TeachConfig

ORACLE = "oracle"


def teach(
    *,
    tasks: Tasks,
    model: Annotated[
        str,
        typer.Option(
            help="Name of the teacher at its endpoint. Without --base-url also a model directory or training run, which then "
            "runs here, or `oracle`, the built-in teacher.",
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
        float | None, typer.Option(min=0, help="Stop before more than this is spent.", show_default=False)
    ] = None,
    budget_tokens: Annotated[
        int | None, typer.Option(min=0, help="Stop before more tokens than this are used.", show_default=False)
    ] = None,
    task_budget_usd: Annotated[
        float | None, typer.Option(min=0, help="As --budget-usd, of the samples of one task.", show_default=False)
    ] = None,
    task_budget_tokens: Annotated[
        int | None, typer.Option(min=0, help="As --budget-tokens, of the samples of one task.", show_default=False)
    ] = None,
    price_in: PriceIn = None,
    price_cached_in: Annotated[
        float | None, typer.Option(min=0, help="The same, of those in the endpoint's cache.", show_default=False)
    ] = None,
    price_out: PriceOut = None,
    prices: Prices = None,
    samples: Annotated[int, typer.Option(min=1, help="Trajectories per task.")] = 1,
    until_accepted: Annotated[
        bool, typer.Option("--until-accepted", help="No further sample of a task after the first accepted one.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Episodes at the same time.")] = 2,
    max_parallel: Annotated[int, typer.Option(min=1, help="Requests under way at the same time.")] = 16,
    requests_per_minute: Annotated[
        float | None, typer.Option(min=0.001, help="Requests begun in a minute.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sampling, and of the built-in teacher.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it may cost, and make no call.")] = False,
    ids: Ids = None,
    max_tasks: MaxTasks = None,
    set_: Settings = None,
) -> None:
    """Let a teacher work on every task, and keep the trajectories that resolve it and happen again in a fresh box.

    `--set endpoint.…` changes how the endpoint is asked, e.g. `endpoint.timeout_s=900` or `endpoint.extra_body.top_k=20`.
    """
    from swe_srl.benchmarks.load import load_tasks
    from swe_srl.cli.prices import check_caps, price_to_count
    from swe_srl.settings import apply_overrides, build
    from swe_srl.teaching.teach import TeachConfig

    price = price_to_count(model, prices, price_in, price_out, price_cached_in)
    where = {"model": model, "api_key_env": api_key_env} | ({"base_url": base_url} if base_url else {})
    settings = {
        "samples": samples,
        "until_accepted": until_accepted,
        "workers": workers,
        "sampling": {"temperature": 0.7, "max_new_tokens": 2048, "seed": seed},
        "budget": {
            "max_usd": budget_usd,
            "max_tokens": budget_tokens,
            "max_usd_per_task": task_budget_usd,
            "max_tokens_per_task": task_budget_tokens,
            "price": {} if is_local(model, base_url) else price.model_dump(exclude_none=True),
        },
        "endpoint": where | {"max_parallel": max_parallel, "requests_per_minute": requests_per_minute},
    }
    table = apply_overrides(settings, set_ or [])
    endpoint = table.pop("endpoint")
    config = build(TeachConfig, table, origin="the options of teach")
    caps = {"--budget-usd": config.budget.max_usd, "--task-budget-usd": config.budget.max_usd_per_task}
    check_caps(caps, config.budget.price, model)
    if not dry_run:
        _check_key(endpoint)
    chosen = load_tasks(tasks, ids or [])[:max_tasks]
    if dry_run:
        here = is_local(model, base_url) or (model == ORACLE and not base_url)
        tell_estimate(chosen, config, model, out, runs_here=here)
    else:
        tell_summary(_teach(chosen, config, endpoint, tasks, out), out, tasks)


def is_local(model: str, base_url: str) -> bool:
    """Whether the teacher runs in this process: a directory or the embedded student, where no endpoint is named."""
    from swe_srl.policy.embedded import EMBEDDED

    return (
        not base_url
        and model != ORACLE
        and (model == EMBEDDED or model.startswith((".", "/", "~")) or Path(model).is_dir())
    )


def _teach(
    chosen: Sequence[Task], config: TeachConfig, endpoint: dict[str, Any], tasks: Path, out: Path
) -> TeachSummary:
    """Connect teacher, boxes and grader."""
    from contextlib import ExitStack

    from swe_srl.agent import open_task_box
    from swe_srl.cli.console import progress
    from swe_srl.grading.grader import Grader
    from swe_srl.store import Run
    from swe_srl.teaching.teach import teach as teach_all

    grader = Grader(tasks, config.sandbox)
    with ExitStack() as stack:
        policy = _policy(endpoint, tasks, config.sampling.seed, stack)
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


def _policy(endpoint: dict[str, Any], tasks: Path, seed: int, stack: ExitStack) -> Policy:
    """The teacher, freed with `stack`; the built-in one is started where it is meant."""
    from swe_srl.policy.endpoint import EndpointConfig
    from swe_srl.policy.load import load_policy
    from swe_srl.settings import build

    if is_local(endpoint["model"], endpoint.get("base_url", "")):
        policy = load_policy(endpoint["model"])
    else:
        if endpoint["model"] == ORACLE and "base_url" not in endpoint:
            from swe_srl.testing.oracle import serve_oracle

            endpoint = endpoint | {"base_url": stack.enter_context(serve_oracle(tasks, seed))}
        policy = build(EndpointConfig, endpoint, origin="the options of teach").build()
    stack.callback(policy.close)
    return policy


def _check_key(endpoint: dict[str, Any]) -> None:
    """Refuse an endpoint that wants a key where there is none. Raises ConfigError."""
    import os

    from swe_srl.errors import ConfigError

    model, key_env = endpoint["model"], endpoint["api_key_env"]
    own = "base_url" in endpoint or model == ORACLE or is_local(model, "")
    if not own and not os.environ.get(key_env):
        raise ConfigError(
            f"no key in ${key_env} for the teacher {model!r}: set it, or give --base-url of a server of your own"
        )
