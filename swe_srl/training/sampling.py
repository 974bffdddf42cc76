"""A config and a student → what samples for it, and whether that has the student's weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from swe_srl.errors import ConfigError, SamplerError
from swe_srl.policy.base import Sampling
from swe_srl.policy.local import LocalPolicy
from swe_srl.policy.scoring import score
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.policy.vllm import VllmConfig, VllmPolicy
from swe_srl.training.config import LoraConfig, SftConfig, TrainConfig
from swe_srl.training.lora import taken_apart
from swe_srl.training.objective import Group, Mismatch, flat, importance_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCES = {"bf16": 0.05, "fp32": 0.001}
"""Mean |Δ log p| in nats between two engines with the same weights, at the very most."""

TESTED_PROMPTS = 8
"""Answered again after the first update."""

TESTED_TOKENS = 64
"""Of each of those answers, at most."""


def open_sampler(config: TrainConfig, student: LocalPolicy) -> TokenPolicy:
    """What draws the answers: the student itself, or an engine beside it that has its weights.

    Raises ConfigError where the engine is not installed or cannot run so, SamplerError where it does not start.
    """
    if not isinstance(config.sampler, VllmConfig) or isinstance(config.algorithm, SftConfig):
        return student
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            'sampler.type = "vllm" runs in one process: start without torchrun, or set sampler.type = "local"'
        )
    from swe_srl.policy.vllm_engine import start

    limit: int = student.model.config.max_position_embeddings
    longest = min(limit, config.max_prompt_tokens + config.max_new_tokens)
    engine = start(student.model.name_or_path, config.sampler, dtype=config.dtype, max_tokens=longest)
    sampler = VllmPolicy(
        engine, student.codec, student.name, max_tokens=limit, max_prompt_tokens=config.max_prompt_tokens
    )
    sampler.update(weights_of(student.model, config.lora))
    return sampler


def weights_of(model: PreTrainedModel, lora: LoraConfig | None = None) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each of a model's parameters; those that it shares come once. An adapter is merged into them."""
    named = {name: parameter.detach() for name, parameter in model.named_parameters()}
    yield from (named if lora is None else taken_apart(named, lora).student).items()


def tolerance_of(config: TrainConfig) -> float:
    """Mean |Δ log p| above which a sampler is not the student."""
    told = config.sampler.tolerance if isinstance(config.sampler, VllmConfig) else None
    return told or TOLERANCES[config.dtype]


def require_agreement(mismatch: Mismatch, config: TrainConfig, when: str) -> None:
    """Raises SamplerError where sampler and trainer are too far apart to be one policy.

    Not the user's mistake, but an apparatus that cannot be trusted: exit 3.
    """
    tolerance = tolerance_of(config)
    if not mismatch.mean <= tolerance:
        raise SamplerError(
            f"{when}: sampler and trainer differ by {mismatch.mean:.3g} nats a token on {mismatch.num_tokens} tokens that the sampler drew "
            f"(tolerance {tolerance:g}), so it does not sample from the weights that are trained: go on from the last checkpoint with "
            'sampler.type = "local", or with another version of vLLM'
        )


def measured(
    sampler: TokenPolicy, student: LocalPolicy, groups: Sequence[Group], config: TrainConfig, *, temperature: float
) -> Mismatch:
    """Sampler against trainer, on answers that are drawn now for some of the groups' prompts."""
    prompts = list(dict.fromkeys(group.prompt_ids for group in groups))[:TESTED_PROMPTS]
    sampling = Sampling(
        temperature=temperature, max_new_tokens=min(TESTED_TOKENS, config.max_new_tokens), seed=config.seed
    )
    answers = [answer for (answer,) in sampler.complete_ids(prompts, sampling)]
    drawn = [
        Group("", answer.prompt_ids, (answer.token_ids,), sampler_log_probs=(answer.log_probs,)) for answer in answers
    ]
    scores = score(student.model, drawn, temperature=temperature, max_tokens=config.micro_batch_tokens)
    return importance_of([flat(rows) for rows in scores], drawn, cap=float("inf"))[1]
