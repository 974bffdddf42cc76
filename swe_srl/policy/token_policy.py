"""Dialogues → ids → completions: what the policies share that know their own tokens, and how a trainer keeps one up to date."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from swe_srl.dialogue import Message
from swe_srl.policy.base import Completion, Sampling
from swe_srl.policy.tokens import Codec, Prompt

if TYPE_CHECKING:
    from torch import Tensor


class TokenPolicy(ABC):
    """See Policy. Reads and writes ids; what they are in words is its codec's business."""

    is_student = False
    """Samples with the very model that is trained: what its log-probabilities are needs no correction."""

    def __init__(self, codec: Codec, name: str, *, max_tokens: int, max_prompt_tokens: int | None = None) -> None:
        """`max_tokens`: of a prompt with its answer; a longer prompt than `max_prompt_tokens` is cut and counted."""
        self.codec = codec
        self.name = name
        self.num_prompts_cut = 0
        """Prompts that did not fit, since this policy was made."""
        self._max_tokens = max_tokens
        self._max_prompt_tokens = max_prompt_tokens
        self._stop_ids: dict[str, frozenset[int]] = {}
        self._eos: set[int] = {codec.end_of_turn, codec.tokenizer.eos_token_id}

    @property
    def context_tokens(self) -> int:
        """See CountsTokens."""
        return self._max_tokens

    def count_tokens(self, text: str) -> int:
        """See CountsTokens."""
        return len(self.codec.text_ids(text))

    def prompt(self, messages: Sequence[Message], *, max_new_tokens: int = 0) -> Prompt:
        """Ids of a dialogue, cut so that it and its answer fit."""
        limit = self._max_tokens - max_new_tokens
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
        """See Policy."""
        encoded = [self.prompt(messages, max_new_tokens=sampling.max_new_tokens).ids for messages in prompts]
        return self.complete_ids(encoded, sampling, num_samples=num_samples, seeds=seeds)

    @staticmethod
    def _asked(
        prompts: Sequence[tuple[int, ...]], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, tuple[int, ...], int, int]]:
        """Place, ids and seed of each prompt, and how many times the same ids and seed have come: what random numbers hang on."""
        seen: Counter[tuple[int, tuple[int, ...]]] = Counter()
        for place, ids in enumerate(prompts):
            seed = seeds[place] if seeds else sampling.seed
            seen[seed, ids] += 1
            yield place, ids, seed, seen[seed, ids]

    @abstractmethod
    def complete_ids(
        self,
        prompts: Sequence[tuple[int, ...]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """As `complete`, from ids."""

    @abstractmethod
    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """The student has these weights now, by their names in its Hugging Face model: sample with them from here on."""

    @abstractmethod
    def rest(self) -> None:
        """Nothing is asked before the next `update`: what memory can be spared may go."""

    @abstractmethod
    def close(self) -> None:
        """Free what it holds."""

    def _stopper(self, stop: str) -> Callable[[list[int]], bool]:
        """A test whether a row is finished. Text is looked at only after a token that can end `stop`."""
        if stop and stop not in self._stop_ids:
            self._stop_ids[stop] = self.codec.ids_with(stop[-1])
        last_ids = self._stop_ids.get(stop, frozenset())
        reach = len(stop) + 8  # a token is at least one character, except for parts of one

        def ended(ids: list[int]) -> bool:
            return ids[-1] in self._eos or (ids[-1] in last_ids and stop in self.codec.decode(ids[-reach:]))

        return ended

    def _completion(
        self,
        prompt_ids: tuple[int, ...],
        ids: Sequence[int],
        log_probs: Sequence[float],
        finish_reason: str,
        stop: str,
    ) -> Completion:
        text = self.codec.decode(ids)
        if stop and stop in text:
            text = text[: text.index(stop) + len(stop)]
        return Completion(
            text=text, num_prompt_tokens=len(prompt_ids), num_tokens=len(ids), finish_reason=finish_reason,
            prompt_ids=prompt_ids, token_ids=tuple(ids), log_probs=tuple(log_probs),
        )  # fmt: skip
