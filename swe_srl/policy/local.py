"""Dialogues → completions, by a Hugging Face model in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from swe_srl.dialogue import Message
from swe_srl.policy.base import Completion, Sampling
from swe_srl.policy.cache import PrefixCache
from swe_srl.policy.drafts import Continuations
from swe_srl.policy.sampler import Row, random_numbers, sample
from swe_srl.policy.tokens import Codec, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_ROWS = 256
"""Answers written side by side. Keys and values of one take about 25 KB a token with 135M parameters, 60 KB with 7B."""

MAX_HELD_TOKENS = 65_536
"""Tokens of prompts whose keys and values are held from one call to the next."""


class LocalPolicy:
    """A model in this process. Trains and samples with the same weights: what changes in `model` is sampled from next."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        max_prompt_tokens: int | None = None,
    ) -> None:
        """`model` was loaded with `attention.IMPLEMENTATION`; a longer prompt than `max_prompt_tokens` is cut and counted."""
        self.model = model
        self.codec = Codec(tokenizer)
        self.name = name
        self.num_prompts_cut = 0
        """Prompts that did not fit, since this policy was made."""
        self._max_prompt_tokens = max_prompt_tokens
        self._stop_ids: dict[str, frozenset[int]] = {}
        self._cache = PrefixCache(model, MAX_HELD_TOKENS)
        self._answers = Continuations()
        self._eos = {self.codec.end_of_turn, tokenizer.eos_token_id}

    def prompt(self, messages: Sequence[Message], *, max_new_tokens: int = 0) -> Prompt:
        """Ids of a dialogue, cut so that it and its answer fit."""
        limit = self.model.config.max_position_embeddings - max_new_tokens
        prompt = self.codec.prompt(messages, min(limit, self._max_prompt_tokens or limit))
        self.num_prompts_cut += prompt.num_tokens_cut > 0
        return prompt

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """See Policy. Rows are written in batches of at most MAX_ROWS; what a row becomes depends on its own prompt only."""
        encoded = [self.prompt(messages, max_new_tokens=sampling.max_new_tokens).ids for messages in prompts]
        return self.complete_ids(encoded, sampling, num_samples=num_samples, seeds=seeds)

    def complete_ids(
        self,
        prompts: Sequence[tuple[int, ...]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """As `complete`, from ids."""
        seen: Counter[tuple[int, tuple[int, ...]]] = Counter()
        rows: list[Row] = []
        for index, ids in enumerate(prompts):
            seed = seeds[index] if seeds else sampling.seed
            seen[seed, ids] += 1
            for number in range(num_samples):
                draws = random_numbers(seed, ids, seen[seed, ids], number, sampling.max_new_tokens)
                rows.append(Row(index, number, draws))
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
            answers[row.prompt].append(self._completion(row, prompts[row.prompt], sampling.stop))
        return answers

    def _stopper(self, stop: str) -> Callable[[list[int]], bool]:
        """A test whether a row is finished. Text is looked at only after a token that can end `stop`."""
        if stop and stop not in self._stop_ids:
            self._stop_ids[stop] = self.codec.ids_with(stop[-1])
        last_ids = self._stop_ids.get(stop, frozenset())
        reach = len(stop) + 8  # a token is at least one character, except for parts of one

        def ended(ids: list[int]) -> bool:
            return ids[-1] in self._eos or (ids[-1] in last_ids and stop in self.codec.decode(ids[-reach:]))

        return ended

    def _completion(self, row: Row, prompt_ids: tuple[int, ...], stop: str) -> Completion:
        text = self.codec.decode(row.ids)
        if stop and stop in text:
            text = text[: text.index(stop) + len(stop)]
        return Completion(
            text=text, num_prompt_tokens=len(prompt_ids), num_tokens=len(row.ids), finish_reason=row.finish_reason,
            prompt_ids=prompt_ids, token_ids=tuple(row.ids), log_probs=tuple(row.log_probs),
        )  # fmt: skip

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
