"""What every policy promises: dialogues in, completions out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pydantic import Field

from swe_srl.dialogue import END_OF_ACTION, Message
from swe_srl.schema import Record
from swe_srl.settings import Config


class Sampling(Config):
    """How completions are drawn."""

    temperature: float = Field(0.0, ge=0.0)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    max_new_tokens: int = Field(256, ge=1)
    stop: str = END_OF_ACTION
    """A completion ends after this text."""
    seed: int = 0


class Completion(Record):
    """One answer of a policy."""

    text: str
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    num_cached_tokens: int = 0
    """Prompt tokens that an endpoint read from its cache."""
    num_cache_write_tokens: int = 0
    """Prompt tokens that an endpoint wrote to its cache; some charge more for these."""
    cost_usd: float = 0.0
    """What it cost, where the policy knows its price."""
    is_estimated: bool = False
    """The counts are our estimate: the endpoint did not tell."""
    finish_reason: str = "stop"
    """`stop`, `length` when it ran into max_new_tokens, `content_filter`, or `prompt_too_long`."""
    prompt_ids: tuple[int, ...] = ()
    """What the policy read, cut where it had to be; empty where it does not tell."""
    token_ids: tuple[int, ...] = ()
    """The sampled ids, the stop text's included; empty where the policy does not tell."""
    log_probs: tuple[float, ...] = ()
    """Natural-log probability of each sampled id at the sampling temperature; empty where the policy does not tell."""


def row_seed(seed: int, prompt: Sequence[int], occurrence: int, sample: int) -> int:
    """Of one answer, in 63 bits: depends on the seed, the prompt's ids, how often it was asked before, and the answer's number alone."""
    key = hashlib.sha256(repr((seed, tuple(prompt), occurrence, sample)).encode()).digest()
    return int.from_bytes(key[:8], "little") >> 1


class Policy(Protocol):
    """A language model that answers dialogues."""

    name: str

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """`num_samples` completions for each prompt, in order.

        `seeds` holds one for each prompt, in place of `sampling.seed`. The same prompt, sampling and seed give the same
        completions. Raises EndpointError when a remote model cannot be reached.
        """

    def close(self) -> None:
        """Free what it holds."""


@runtime_checkable
class CountsTokens(Protocol):
    """A policy that can tell how much room a text takes."""

    context_tokens: int
    """The longest prompt and answer together."""

    def count_tokens(self, text: str) -> int:
        """Tokens of plain text."""
