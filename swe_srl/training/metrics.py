"""What a training run says of itself: a line of `metrics.jsonl` for each update, the probe's, and how many tokens it all took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from swe_srl.errors import NothingToLearn
from swe_srl.schema import Record
from swe_srl.store import read_json, read_records, write_json, write_text

METRICS = "metrics.jsonl"
PROBE = "probe.jsonl"
STALLED = "stalled.json"

_MOST = 0.5
"""Share of answers that do the same from which on it is worth a word."""


class UpdateMetrics(Record):
    """One optimizer update."""

    update: int = Field(ge=1)
    num_updates: int
    loss: float
    lr: float
    grad_norm: float
    """Before clipping."""
    entropy: float
    """Mean of -log p over the batch's answer tokens: for sampled answers an unbiased estimate of the policy's entropy."""
    clip_share: float
    """Weighted share of tokens whose ratio was clipped."""
    kl: float = 0.0
    """Weighted estimate of the divergence from the reference, in nats; 0 where there is none."""
    sampler_gap_mean: float = 0.0
    """|Δ log p| between the engine that drew the fresh answers and the trainer, in nats a token; 0 where the student drew them."""
    sampler_gap_max: float = 0.0
    truncated_share: float = 0.0
    """Of those tokens, how many counted no more than `objective.importance_cap`."""
    num_tokens: int
    """Through the model in the training pass: the tokens of the trees."""
    num_plain_tokens: int = 0
    """What the same batch would take as plain sequences, each prompt once for each of its answers."""
    num_sampled_tokens: int = 0
    """Through the model while the batch was sampled: the tokens of the tree of all prompts and answers, thrown away or not."""
    num_answer_tokens: int
    """With a loss."""
    num_prompts_cut: int
    """Prompts so far that were longer than max_prompt_tokens."""
    cursor: int
    """Examples handed out so far."""
    collected: dict[str, float | int | dict[str, int]]
    """How the batch was come by: rewards, groups kept and thrown away by reason, rounds."""
    collect_s: float
    train_s: float


class Probed(Record):
    """How a student did on one task before it was trained."""

    task_id: str
    num_episodes: int
    """Those whose box or grading broke are not among them."""
    num_resolved: int
    num_tokens: int = 0
    """Through the model: those of the tree of the episodes."""

    @property
    def is_solvable(self) -> bool:
        """Solved by some episodes, and not by others."""
        return 0 < self.num_resolved < self.num_episodes


class Stalled(Record):
    """Why a run could not go on: all that the student tried was worth the same."""

    update: int
    """The one that could not be made; 0 where the probe found no task to train on."""
    reason: str
    num_sampled_tokens: int
    """For that update, in vain."""


class Spent(NamedTuple):
    """Tokens that went through the model."""

    trained: int = 0
    sampled: int = 0

    @property
    def total(self) -> int:
        """Both; what a budget is compared with."""
        return self.trained + self.sampled


def read_metrics(run: Path) -> list[UpdateMetrics]:
    """All updates of a run."""
    path = run / METRICS
    return list(read_records(path, UpdateMetrics)) if path.is_file() else []


def learned(rows: Sequence[UpdateMetrics]) -> str:
    """What changed from the first of some updates to the last, in words: the rewards, or the loss where there are none; and whether answers fell together."""
    first, last = rows[0], rows[-1]
    if "reward_mean" in last.collected:
        values = [row.collected.get("reward_mean", 0.0) for row in (first, last)]
        said = f"mean reward {values[0]:.3f} at update {first.update}, {values[1]:.3f} at update {last.update}"
        alike = last.collected.get("commonest_action")
        if isinstance(alike, float) and alike > _MOST:
            said += f", where {alike:.0%} of the answers are one and the same action"
        return said
    return f"loss {first.loss:.3f} at update {first.update}, {last.loss:.3f} at update {last.update}"


def forget_after(run: Path, update: int) -> None:
    """Drop the lines of updates that a resumed run will take again."""
    path = run / METRICS
    if not path.is_file():
        return
    lines: list[str] = []
    for line, record in zip(
        path.read_text().splitlines(keepends=True), read_records(path, UpdateMetrics), strict=False
    ):
        if record.update <= update:
            lines.append(line)
    write_text(path, "".join(lines))


@contextmanager
def noting_a_stall(run: Path, update: int, *, by_me: bool = True) -> Iterator[None]:
    """Where there is nothing to learn from, `stalled.json` says so before NothingToLearn goes on. Of several processes one writes it."""
    try:
        yield
    except NothingToLearn as error:
        stalled = Stalled(update=update, reason=str(error), num_sampled_tokens=error.num_sampled_tokens)
        if by_me:
            write_json(run / STALLED, stalled.model_dump(mode="json"))
        raise


def clear_stall(run: Path) -> None:
    """What stalled before may go on now."""
    (run / STALLED).unlink(missing_ok=True)


def read_stalled(run: Path) -> Stalled | None:
    """Why the last call of the run could not go on; None where it could."""
    path = run / STALLED
    return Stalled.model_validate(read_json(path)) if path.is_file() else None


def spent(run: Path, *, updates: int | None = None) -> Spent:
    """Tokens of a run's probe and of its first `updates` (all where None), those of an update that could not be made included.

    A token counts each time that it goes through the model, forward only or forward and backward; a beginning that several
    prompts of one update share counts once. Passes of a frozen reference are not counted.
    """
    rows = [row for row in read_metrics(run) if updates is None or row.update <= updates]
    probed = list(read_records(run / PROBE, Probed)) if (run / PROBE).is_file() else []
    stalled = read_stalled(run) if updates is None else None
    return Spent(
        trained=sum(row.num_tokens for row in rows),
        sampled=sum(row.num_sampled_tokens for row in rows)
        + sum(item.num_tokens for item in probed)
        + (stalled.num_sampled_tokens if stalled else 0),
    )
