"""Dialogues → completions, by vLLM beside the student. Ids in, ids out; what an answer is and when it ends is as in LocalPolicy.

Importing this loads neither vLLM nor torch: what is asked of vLLM goes through an `Engine` (policy/vllm_engine.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from pydantic import Field

from swe_srl.policy.base import Completion, Sampling, row_seed
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.policy.tokens import Codec
from swe_srl.settings import Config

if TYPE_CHECKING:
    from torch import Tensor


class VllmConfig(Config):
    """vLLM in this process, with its own copy of the weights. Needs the `vllm` extra (docs/vllm.md)."""

    type: Literal["vllm"] = "vllm"
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share the model. Above 1 its workers are processes of their own, and new weights go to them through the host's memory."""
    memory_share: float = Field(0.4, gt=0, lt=1)
    """Of a GPU's memory, for weights, keys and values; the trainer needs the rest, unless the sampler sleeps while it trains."""
    kv_cache_gib: float | None = Field(None, gt=0)
    """For keys and values. Where null, what `memory_share` leaves on a GPU, and 1 GiB on a CPU."""
    max_parallel: int = Field(256, ge=1)
    """Answers written at once."""
    eager: bool = False
    """Do not compile the model: starts sooner, samples slower. On a CPU it is never compiled."""
    sleep: bool = False
    """Give the GPU's memory back while the student is trained: costs the time to take it again. Nothing sleeps on a CPU."""
    tolerance: float | None = Field(None, gt=0)
    """Mean |Δ log p| between this sampler and the trainer, in nats, above which a run stops; where null 0.05 in bf16, 0.001 in fp32."""


class Ask(NamedTuple):
    """One answer that is wanted."""

    ids: tuple[int, ...]
    """The prompt."""
    seed: int


class Answer(NamedTuple):
    """One answer as an engine gives it: it may go on behind the place where it should have ended."""

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    """Natural-log probabilities at the sampling temperature over the whole vocabulary (at 1 where sampling is greedy); empty where the engine cannot tell."""


class Engine(Protocol):
    """What is asked of vLLM."""

    def generate(self, asks: Sequence[Ask], sampling: Sampling, stop_ids: Sequence[int]) -> list[Answer]:
        """An answer to each, in order. It ends with one of `stop_ids`, after `sampling.stop`, or at its limit of tokens.

        Raises SamplerError where the engine fails.
        """

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Answer with these weights from here on, by their Hugging Face names, and with nothing that was read with others. Wakes the engine."""

    def sleep(self) -> None:
        """Give memory back until the next `load`, where that is set and possible."""

    def close(self) -> None:
        """End."""


class VllmPolicy(TokenPolicy):
    """A model in an engine beside the student.

    Its random numbers are seeded row by row as LocalPolicy's are, so the same call gives the same answers; but they are
    drawn in another way, so they are other answers than LocalPolicy's (greedy ones are the same, up to ties).
    """

    def __init__(
        self, engine: Engine, codec: Codec, name: str, *, max_tokens: int, max_prompt_tokens: int | None = None
    ) -> None:
        super().__init__(codec, name, max_tokens=max_tokens, max_prompt_tokens=max_prompt_tokens)
        self._engine = engine

    def complete_ids(
        self,
        prompts: Sequence[tuple[int, ...]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """See TokenPolicy. All is asked for at once, prompts that begin alike side by side: what they share is read once."""
        asks = [
            (Ask(ids, row_seed(seed, ids, time, number)), index)
            for index, ids, seed, time in self._asked(prompts, sampling, seeds)
            for number in range(num_samples)
        ]
        asks.sort(key=lambda item: (item[0].ids, item[1]))  # stable: the answers to a prompt stay in order
        found = self._engine.generate([ask for ask, _ in asks], sampling, sorted(self._eos))
        answers: list[list[Completion]] = [[] for _ in prompts]
        for (ask, index), answer in zip(asks, found, strict=True):
            answers[index].append(self._ended(ask, answer, sampling.stop))
        return answers

    def _ended(self, ask: Ask, answer: Answer, stop: str) -> Completion:
        """The answer up to the token with which LocalPolicy's would end."""
        ended = self._stopper(stop)
        ids = list(answer.ids)
        count = next((count for count in range(1, len(ids) + 1) if ended(ids[:count])), None)
        reason = "length" if count is None else "stop"
        return self._completion(ask.ids, ids[:count], answer.log_probs[:count], reason, stop)

    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See TokenPolicy."""
        self._engine.load(weights)

    def rest(self) -> None:
        """See TokenPolicy."""
        self._engine.sleep()

    def close(self) -> None:
        """End the engine."""
        self._engine.close()
