"""A model and a tree's row → the log-probability of each answer token. Logits exist only where there is a loss."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from swe_srl.policy.tree import Answers, TokenTree, TreeRow, micro_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

LOGIT_CHUNK = 1024
"""Positions whose logits are held at once; 1,024 rows of 150,000 fp32 logits are 600 MB."""


def token_log_probs(model: PreTrainedModel, row: TreeRow, *, temperature: float = 1.0) -> Tensor:
    """(N,) fp32 natural-log probabilities of `row.targets` at `temperature`, with gradient."""
    backbone = model.base_model
    hidden = backbone(
        input_ids=row.input_ids, position_ids=row.position_ids, use_cache=False, plan=row.plan
    ).last_hidden_state[0]
    hidden = hidden.index_select(0, row.sources)
    head = model.get_output_embeddings().weight
    chunks = range(0, len(row.targets), LOGIT_CHUNK)
    if len(chunks) == 1:
        return _log_probs(hidden, head, row.targets, temperature)
    scores = [
        checkpoint(
            _log_probs,
            hidden[i : i + LOGIT_CHUNK],
            head,
            row.targets[i : i + LOGIT_CHUNK],
            temperature,
            use_reentrant=False,
        )
        for i in chunks
    ]
    return torch.cat(scores)


@torch.inference_mode()
def score(
    model: PreTrainedModel, groups: Sequence[Answers], *, temperature: float, max_tokens: int
) -> list[tuple[tuple[float, ...], ...]]:
    """The log-probabilities of each group's answers, token by token and without gradient; `max_tokens` in one pass."""
    model.eval()
    scores: list[tuple[tuple[float, ...], ...]] = [()] * len(groups)
    for indices in micro_batches(groups, max_tokens):
        row = TokenTree([groups[index] for index in indices]).row(model.device)
        left = iter(token_log_probs(model, row, temperature=temperature).tolist())
        for index in indices:
            scores[index] = tuple(tuple(islice(left, len(ids))) for ids in groups[index].completions)
    return scores


def _log_probs(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ head.t()).float()
    if temperature != 1.0:
        logits = logits / temperature
    return -cross_entropy(logits, targets, reduction="none")
