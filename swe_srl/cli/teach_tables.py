"""What `swe-srl teach` prints: before, what it may cost; after, what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from swe_srl.schema import Task
    from swe_srl.teaching.summary import TeachSummary
    from swe_srl.teaching.teach import TeachConfig


def tell_estimate(chosen: Sequence[Task], config: TeachConfig, model: str, out: Path, *, runs_here: bool) -> None:
    """Print what teaching may cost; where the teacher runs on this machine, nothing."""
    from swe_srl.cli.console import say, table
    from swe_srl.policy.prices import BUNDLED, price_of, read_prices
    from swe_srl.store import Run
    from swe_srl.teaching.estimate import Assumptions, estimate
    from swe_srl.teaching.teach import pending

    assumed = Assumptions()
    found = estimate(pending(chosen, config, Run(out) if out.is_dir() else None), config, assumed)
    rows = [["tasks", f"{found.num_tasks}"], ["trajectories", f"{found.num_trajectories}"]]
    if config.until_accepted:
        rows.append(["  expected", f"{found.num_expected:.1f}"])
    rows.append(["tokens of the first prompt, median", f"{found.median_first_prompt}"])
    rows.append(["  of all tasks together", f"{sum(found.first_prompts)}"])
    unpriced = "none, it runs here" if runs_here else "no price is known"
    for name, usage in (("expected", found.expected), ("worst case", found.worst)):
        rows.append([f"{name}: prompt tokens", f"{usage.prompt_tokens}"])
        rows.append([f"{name}: completion tokens", f"{usage.completion_tokens}"])
        rows.append([f"{name}: USD", unpriced if config.budget.price.is_free else f"{usage.cost_usd:.2f}"])
    table(f"{model}, no call made", ["", "estimate"], rows)
    say(
        f"expected: {min(assumed.turns, config.limits.max_turns)} turns, {assumed.completion_tokens} tokens an answer, "
        f"{assumed.observation_tokens} an observation, nothing read from a cache, no call lost"
        + (f", {assumed.accepted_share:.0%} accepted" if config.until_accepted else "")
    )
    say(
        f"worst case: {config.limits.max_turns} turns, {config.sampling.max_new_tokens} tokens an answer, "
        f"{config.context.max_observation_chars} characters an observation, a token each; lost calls come on top"
    )
    if config.budget.price == price_of(model):
        origin = read_prices(BUNDLED).table
        say(
            f"prices: those of {origin['checked']}, from {origin['source']}; --prices or --price-in and --price-out go first"
        )


def tell_summary(summary: TeachSummary, out: Path, tasks: Path) -> None:
    """Print what came of it. Raises ApparatusError where trajectories are left for the next call."""
    from swe_srl.cli.console import say, table
    from swe_srl.errors import ApparatusError

    rows = [["wanted", summary.num_wanted], ["accepted", summary.num_accepted], ["rejected", summary.num_rejected]]
    rows += [[f"  {reason}", count] for reason, count in summary.rejected_because.items()]
    rows += [
        ["not needed", summary.num_not_needed],
        ["left by the budget", summary.num_not_begun_or_stopped],
        ["left by the apparatus", summary.num_infra_failures],
    ]
    table("trajectories", ["", "number"], [[str(name), str(count)] for name, count in rows])
    usage, calls = summary.usage, summary.calls
    if summary.faithful_share is not None:
        say(
            f"{summary.num_steps_faithful} of {summary.num_steps} accepted steps happened again as recorded ({summary.faithful_share:.2%})"
        )
    say(
        f"{usage.prompt_tokens} prompt ({usage.cached_tokens} cached) and {usage.completion_tokens} completion tokens, {usage.cost_usd:.4f} USD; "
        f"{calls.get('answered', 0)} calls answered, {calls.get('lost', 0)} lost and charged at their worst, {calls.get('refused', 0)} turned away"
    )
    if summary.settings_refused:
        say(f"the endpoint does not take {', '.join(summary.settings_refused)}: its own setting holds")
    if summary.num_infra_failures:
        raise ApparatusError(
            f"{summary.num_infra_failures} trajectories could not be made, the first because: {summary.infra_failure}: "
            f"the others are in {out}; call the same command again for the rest"
        )
    if summary.exit_status == "budget":
        say("a budget is reached; call the same command with a larger one to go on")
    if summary.num_accepted:
        say(
            f"trajectories are in {out}; next: swe-srl replay {out}/trajectories.jsonl --tasks {tasks} --out {out}-steps"
        )
    elif summary.num_rejected:
        say(
            f"none is accepted: {out}/rejected.jsonl has each with its reason; more --samples with --until-accepted try again"
        )
