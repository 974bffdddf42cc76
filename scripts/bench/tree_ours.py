"""Updates by this package, for tree.py: `python tree_ours.py tree|plain WORK`."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from tree_common import GROUP_SIZE, NEW_TOKENS, Counter, Measured, Work, serve

from swe_srl.policy.load import load_student, require_torch

require_torch()

import torch
from torch import Tensor

from swe_srl.policy.base import Sampling
from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.tree import TokenTree, micro_batches
from swe_srl.rewards.similarity import similarity
from swe_srl.training.config import ObjectiveConfig, OptimizerConfig
from swe_srl.training.objective import Group, group_advantages, per_token, policy_gradient, token_weights
from swe_srl.training.optimizer import MasterOptimizer

if TYPE_CHECKING:
    from swe_srl.policy.local import LocalPolicy

MICRO_BATCH_TOKENS = 16_384

Ids = tuple[int, ...]
Sample = Callable[["LocalPolicy", list[Ids], int], list[tuple[Ids, ...]]]
Parts = Callable[[list[Group], list[Tensor]], Iterator[tuple[list[Group], Tensor]]]


def sample_tree(policy: LocalPolicy, prompts: list[Ids], seed: int) -> list[tuple[Ids, ...]]:
    """All answers side by side, over one copy of the history."""
    sampling = Sampling(temperature=1.0, max_new_tokens=NEW_TOKENS, stop="", seed=seed)
    policy._eos = set()  # noqa: SLF001 - every answer is to be of the full length
    answers = policy.complete_ids(prompts, sampling, num_samples=GROUP_SIZE)
    return [tuple(answer.token_ids for answer in group) for group in answers]


def sample_plain(policy: LocalPolicy, prompts: list[Ids], seed: int) -> list[tuple[Ids, ...]]:
    """Prompt by prompt by transformers' generate."""
    torch.manual_seed(seed)
    groups = []
    for ids in prompts:
        rows = torch.tensor([ids] * GROUP_SIZE)
        written = policy.model.generate(
            rows, attention_mask=torch.ones_like(rows), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, pad_token_id=0,
        )  # fmt: skip
        groups.append(tuple(map(tuple, written[:, len(ids) :].tolist())))
    return groups


def parts_of_tree(groups: list[Group], weights: list[Tensor]) -> Iterator[tuple[list[Group], Tensor]]:
    """What goes through the model in one pass: as many groups as fit into MICRO_BATCH_TOKENS."""
    for indices in micro_batches(groups, MICRO_BATCH_TOKENS):
        yield [groups[index] for index in indices], torch.cat([weights[index] for index in indices])


def parts_plain(groups: list[Group], weights: list[Tensor]) -> Iterator[tuple[list[Group], Tensor]]:
    """Each answer with a prompt of its own."""
    for group, of_group in zip(groups, weights, strict=True):
        for completion, advantage, weight in zip(
            group.completions, group.advantages, of_group.split(NEW_TOKENS), strict=True
        ):
            yield [Group("", group.prompt_ids, (completion,), (advantage,))], weight


def updates(sample: Sample, parts: Parts, work: Work) -> Iterator[Measured]:
    """Update after update by this package's policy, objective and optimizer."""
    policy = load_student(str(work.model), dtype=work.dtype, device="cpu")
    counter = Counter(policy.model)
    optimizer = MasterOptimizer(policy.model, OptimizerConfig(lr=1e-6, schedule="constant"))
    prompts = [tuple(policy.codec.tokenizer(prompt).input_ids) for prompt in work.prompts]
    for seed in itertools.count():
        begun, counter.total = time.perf_counter(), 0
        policy.model.eval()
        answers = sample(policy, prompts, seed)
        sampled = time.perf_counter()
        groups = [
            Group("", ids, completions, group_advantages([similarity(policy.codec.decode(c), target) for c in completions]))
            for ids, completions, target in zip(prompts, answers, work.targets, strict=True)
        ]  # fmt: skip
        policy.model.train()
        for part, weights in parts(groups, token_weights(groups, "sequence", NEW_TOKENS)):
            log_probs = token_log_probs(policy.model, TokenTree(part).row())
            advantages = torch.cat([per_token(group) for group in part])
            policy_gradient(log_probs, log_probs.detach(), advantages, weights, ObjectiveConfig()).value.backward()  # type: ignore[no-untyped-call]
            optimizer.accumulate()
        optimizer.step(1e-6)
        policy.forget()
        yield Measured(time.perf_counter() - begun, sampled - begun, counter.total)


WAYS = {"tree": (sample_tree, parts_of_tree), "plain": (sample_plain, parts_plain)}

if __name__ == "__main__":
    serve(partial(updates, *WAYS[sys.argv[1]]), sys.argv[2])
