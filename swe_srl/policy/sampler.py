"""Prompt ids → sampled ids, in this process: each prompt is read once, all its answers are written side by side.

Rows that are finished leave the batch. A row's random numbers depend on the seed, its prompt and its number alone, not
on what else is in the batch: each place of an answer has its own, which chooses the token there from the model's
distribution. So a guess is right when it is what the number chooses, and guessing changes no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from swe_srl.policy.base import Sampling, row_seed
from swe_srl.policy.cache import PrefixCache
from swe_srl.policy.decoding import DecodePlan
from swe_srl.policy.drafts import Continuations, Drafts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class Row:
    """One answer while it is being written."""

    prompt: int
    """Which prompt it answers."""
    sample: int
    draws: Tensor
    """(max_new_tokens,) float64 in [0, 1): one random number for each token."""
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finish_reason: str = ""
    """Empty while it is written."""
    num_learned: int = 0
    """Tokens from which guesses have been learnt."""

    @property
    def num_left(self) -> int:
        """Tokens that it may still have."""
        return len(self.draws) - len(self.ids)


MAX_GUESSED = 3
"""Tokens guessed behind a row's last one. Right guesses save a pass through the model, wrong ones make it wider."""

MAX_WIDTH = 256
"""Tokens of one pass up to which guesses are added: beyond, a pass takes as long as its tokens are many."""


def random_numbers(seed: int, prompt: Sequence[int], occurrence: int, sample: int, count: int) -> Tensor:
    """(count,) float64 in [0, 1), from these arguments alone."""
    generator = torch.Generator().manual_seed(row_seed(seed, prompt, occurrence, sample))
    return torch.rand(count, generator=generator, dtype=torch.float64)


def choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Ids (R,) and their log-probabilities (R,) from logits (R, V) and one random number a row.

    Log-probabilities are those at the sampling temperature over the whole vocabulary (at 1 where sampling is greedy).
    """
    logits = logits.float()
    if sampling.temperature == 0.0:
        ids = logits.argmax(dim=-1)
        return ids, logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(dim=-1)
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    logits = logits - logits.amax(dim=-1, keepdim=True)
    weights = logits.exp()
    total = weights.sum(dim=-1, keepdim=True)
    if sampling.top_p < 1.0:
        ordered, order = weights.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(dim=-1) - ordered >= sampling.top_p * total
        weights = weights.scatter(1, order, ordered.masked_fill(beyond, 0.0))
    ids = _where_passed(weights, draws.to(weights.device))
    return ids, (logits.gather(1, ids[:, None]) - total.log())[:, 0]


def _where_passed(weights: Tensor, draws: Tensor) -> Tensor:
    """(R,) the first place at which each row's running sum, as a share of its total, passes the row's draw in [0, 1).

    One random number a row, however many tokens there are. Running sums over 50,000 numbers are slow and, in float32,
    off by up to 1e-5: here they are taken over blocks, then inside the one block in question, in float64.
    """
    size = 128
    missing = -weights.shape[1] % size
    blocks = (pad(weights, (0, missing)) if missing else weights).reshape(len(weights), -1, size)
    sums = blocks.sum(dim=-1).double()
    ends = sums.cumsum(dim=-1)
    point = draws[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, point, right=True).clamp_(max=ends.shape[1] - 1)
    share = (point - (ends - sums).gather(1, block)) / sums.gather(1, block)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, size))[:, 0].double().cumsum(dim=-1)
    place = torch.searchsorted(inside, share.clamp(0.0, 1.0 - 1e-12) * inside[:, -1:], right=True)
    return (block * size + place)[:, 0]


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    cache: PrefixCache,
    answers: Continuations,
    prompts: Sequence[tuple[int, ...]],
    rows: Sequence[Row],
    sampling: Sampling,
    ended: Callable[[list[int]], bool],
) -> None:
    """Write every row's answer. `rows` are in the order of their prompts; `ended` tells from a row's ids whether it stops.

    `answers` is what answers to other prompts said; what is written now is added.
    """
    backbone, head = model.base_model, model.get_output_embeddings()
    device = head.weight.device
    ends, hidden = cache.read(prompts)
    hidden = hidden.index_select(0, torch.tensor([row.prompt for row in rows], device=device))
    plan = DecodePlan(cache, [ends[row.prompt] for row in rows], sampling.max_new_tokens)
    drafts = Drafts(prompts, answers)
    active = list(rows)
    guesses: list[list[int]] = [[] for _ in active]
    while True:
        draws = [row.draws[len(row.ids) :][: len(guess) + 1] for row, guess in zip(active, guesses, strict=True)]
        ids, log_probs = choose(head(hidden), torch.cat(draws).to(device), sampling)
        _take(active, guesses, list(zip(ids.tolist(), log_probs.tolist(), strict=True)), ended)
        going = [index for index, row in enumerate(active) if not row.finish_reason]
        if not going:
            _learn(rows, drafts)
            return
        if len(going) < len(active):
            active = [active[index] for index in going]
            plan.keep(torch.tensor(going, device=device))
        limit = min(MAX_GUESSED, MAX_WIDTH // len(active) - 1)
        if limit > 0:
            _learn(rows, drafts)
        guesses = [drafts.guess(row.prompt, row.ids, min(limit, row.num_left - 1)) for row in active]
        new = plan.advance([len(row.ids) - 1 for row in active], [len(guess) + 1 for guess in guesses], device)
        tokens = [token for row, guess in zip(active, guesses, strict=True) for token in (row.ids[-1], *guess)]
        first = torch.tensor([len(prompts[row.prompt]) + len(row.ids) - 1 for row in active], device=device)
        hidden = backbone(
            input_ids=torch.tensor([tokens], device=device), position_ids=(first[new.rows] + new.offsets)[None],
            use_cache=False, plan=plan,
        ).last_hidden_state[0]  # fmt: skip


def _take(
    rows: Sequence[Row],
    guesses: Sequence[Sequence[int]],
    chosen: Sequence[tuple[int, float]],
    ended: Callable[[list[int]], bool],
) -> None:
    """Give each row its new tokens: what was chosen behind its last token, and behind each guess that was right."""
    start = 0
    for row, guess in zip(rows, guesses, strict=True):
        for (token, log_prob), guessed in zip(chosen[start : start + len(guess) + 1], (*guess, None), strict=True):
            row.ids.append(token)
            row.log_probs.append(log_prob)
            if ended(row.ids):
                row.finish_reason = "stop"
            elif row.num_left == 0:
                row.finish_reason = "length"
            if row.finish_reason or token != guessed:
                break
        start += len(guess) + 1


def _learn(rows: Sequence[Row], drafts: Drafts) -> None:
    """What the rows said since the last call becomes something to guess from."""
    for row in rows:
        if len(row.ids) > row.num_learned:
            drafts.learn(row.prompt, row.ids, len(row.ids) - row.num_learned)
            row.num_learned = len(row.ids)
