"""Dialogues → completions, by a Hugging Face model in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from swe_srl.policy.base import Completion, Sampling
from swe_srl.policy.cache import PrefixCache
from swe_srl.policy.drafts import Continuations
from swe_srl.policy.sampler import Row, random_numbers, sample
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.policy.tokens import Codec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_ROWS = 256
"""Answers written side by side. Keys and values of one take about 25 KB a token with 135M parameters, 60 KB with 7B."""

MAX_HELD_TOKENS = 65_536
"""Tokens of prompts whose keys and values are held from one call to the next."""


class LocalPolicy(TokenPolicy):
    """A model in this process. Trains and samples with the same weights: what changes in `model` is sampled from next."""

    is_student = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        max_prompt_tokens: int | None = None,
    ) -> None:
        """`model` was loaded with `attention.IMPLEMENTATION`; a longer prompt than `max_prompt_tokens` is cut and counted."""
        super().__init__(
            Codec(tokenizer), name, max_tokens=model.config.max_position_embeddings, max_prompt_tokens=max_prompt_tokens
        )
        self.model = model
        self._cache = PrefixCache(model, MAX_HELD_TOKENS)
        self._answers = Continuations()

    def complete_ids(
        self,
        prompts: Sequence[tuple[int, ...]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """As `complete`, from ids. Rows are written in batches of at most MAX_ROWS; what a row becomes depends on its own prompt only."""
        rows = [
            Row(index, number, random_numbers(seed, ids, time, number, sampling.max_new_tokens))
            for index, ids, seed, time in self._asked(prompts, sampling, seeds)
            for number in range(num_samples)
        ]
        ended = self._stopper(sampling.stop)
        self.model.eval()
        for batch in _batches(rows, prompts):
            order = list(dict.fromkeys(row.prompt for row in batch))
            place = {prompt: number for number, prompt in enumerate(order)}
            local = [Row(place[row.prompt], row.sample, row.draws, row.ids, row.log_probs) for row in batch]
            sample(
                self.model, self._cache, self._answers, [prompts[prompt] for prompt in order], local, sampling, ended
            )
            for row, done in zip(batch, local, strict=True):
                row.finish_reason = done.finish_reason
        answers: list[list[Completion]] = [[] for _ in prompts]
        for row in rows:
            answers[row.prompt].append(
                self._completion(prompts[row.prompt], row.ids, row.log_probs, row.finish_reason, sampling.stop)
            )
        return answers

    def save(self, path: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write model and tokenizer as a plain Hugging Face directory; with `weights` in place of those it has here."""
        self.model.save_pretrained(path, state_dict=None if weights is None else dict(weights))
        self.codec.tokenizer.save_pretrained(path)

    def forget(self) -> None:
        """To be called when the weights have changed: what was read with the old ones is of no use.

        What was said with them would help to guess what is said next; but a run that is resumed does not have it, and
        how many tokens go through the model side by side shows in the last bits of its numbers.
        """
        self._cache.clear()
        self._answers = Continuations()

    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See TokenPolicy: the weights are there already."""
        del weights
        self.forget()

    def rest(self) -> None:
        """See TokenPolicy: the model is trained meanwhile."""

    def checkpoint_activations(self) -> None:
        """From now on a pass with gradients keeps only what goes into each layer."""
        # Before transformers 5.22 under an older name.
        enable = (
            getattr(self.model, "activation_checkpointing_enable", None) or self.model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})

    def close(self) -> None:
        """Free the weights."""
        self.model = None
        self._cache.clear()


def _batches(rows: Sequence[Row], prompts: Sequence[tuple[int, ...]]) -> Iterator[list[Row]]:
    """At most MAX_ROWS rows at once: those of one prompt together where they fit, and prompts that begin alike."""
    batch: list[Row] = []
    ordered = sorted(rows, key=lambda row: (prompts[row.prompt], row.prompt, row.sample))
    for _, of_prompt in groupby(ordered, key=lambda row: row.prompt):
        group = list(of_prompt)
        if batch and len(batch) + len(group) > MAX_ROWS:
            yield batch
            batch = []
        while len(group) > MAX_ROWS:
            yield group[:MAX_ROWS]
            group = group[MAX_ROWS:]
        batch += group
    if batch:
        yield batch


def load_local(path: str, name: str, *, dtype: torch.dtype, device: str, max_prompt_tokens: int | None) -> LocalPolicy:
    """The model in a Hugging Face directory (or hub cache) as a policy."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from swe_srl.policy.attention import IMPLEMENTATION, register

    register()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation=IMPLEMENTATION)
    return LocalPolicy(model.to(device), tokenizer, name, max_prompt_tokens=max_prompt_tokens)
