"""What each update reports: one line of `metrics.jsonl`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from swe_srl.schema import Record
from swe_srl.store import read_records, write_text

METRICS = "metrics.jsonl"


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


def read_metrics(run: Path) -> list[UpdateMetrics]:
    """All updates of a run."""
    path = run / METRICS
    return list(read_records(path, UpdateMetrics)) if path.is_file() else []


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
