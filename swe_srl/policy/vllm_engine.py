"""A model's directory → vLLM in this process, as an Engine. All that is known of vLLM's own interface stands here."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from swe_srl.errors import ConfigError, SamplerError
from swe_srl.policy.base import Sampling
from swe_srl.policy.vllm import Answer, Ask, VllmConfig

if TYPE_CHECKING:
    from torch import nn
    from vllm import LLM

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, so that weights are handed over where they lie
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer's threads are the same ones
    "VLLM_LOGGING_LEVEL": "ERROR",  # it warns of the same things at each new set of weights
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # by default vLLM logs where results are printed
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM reads when it starts; what the user has set stays."""

CPU_CACHE_GIB = 1.0
"""For keys and values on a CPU, where nothing else is said: 45,000 tokens of a model of 135M parameters in bf16."""

CPU_BLOCK_SIZE = 32
"""Tokens of a prompt that are shared or read again as one, on a CPU; vLLM's own 128 would read most of a short step again."""

CPU_PASS_TOKENS = 4096
"""Of all rows in one pass on a CPU, unless a single prompt with its answer may be longer."""

_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
_SLEEP_LEVEL = 2
"""Weights are dropped, not kept on the host: the next `load` brings all of them."""


class VllmEngine:
    """See Engine."""

    def __init__(self, llm: LLM, *, on_cpu: bool, may_sleep: bool, hands_over: bool) -> None:
        """`hands_over`: the model is in this process, so that it takes weights as they lie."""
        self._llm = llm
        self._on_cpu = on_cpu
        self._may_sleep = may_sleep
        self._hands_over = hands_over
        self._asleep = False

    def generate(self, asks: Sequence[Ask], sampling: Sampling, stop_ids: Sequence[int]) -> list[Answer]:
        """See Engine."""
        from vllm import SamplingParams, TokensPrompt

        assert not self._asleep, "a sleeping engine has no weights: load them first"
        common: dict[str, Any] = {
            "temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens,
            "stop": [sampling.stop] if sampling.stop else None, "include_stop_str_in_output": True, "logprobs": 0,
            # The model's own settings name other ids that end an answer, which the student's sampler does not know.
            "ignore_eos": True, "stop_token_ids": list(stop_ids),
        }  # fmt: skip
        try:
            found = self._llm.generate(
                [TokensPrompt(prompt_token_ids=list(ask.ids)) for ask in asks],
                [SamplingParams(**common, seed=ask.seed) for ask in asks],
                use_tqdm=False,
            )
        except RuntimeError as error:  # out of memory, and whatever its kernels say
            raise SamplerError(
                f"vLLM failed while it sampled ({_said(error)}): lower sampler.max_parallel, give it more memory, or set "
                'sampler.type = "local"'
            ) from error
        told = sampling.top_p == 1.0 or sampling.temperature == 0.0  # else of the nucleus, not of the vocabulary
        return [_answer(item.outputs[0], told=told) for item in found]

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See Engine."""
        if self._asleep:
            self._llm.wake_up(tags=["weights"])
        given: Iterable[tuple[str, Tensor]] = weights
        if not self._hands_over:
            given = [(name, tensor.cpu()) for name, tensor in weights]
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": given})
            if self._on_cpu:
                self._llm.apply_model(_pack_heads)
        except (RuntimeError, ValueError, KeyError) as error:
            raise SamplerError(
                f'vLLM does not take the student\'s weights ({_said(error)}): set sampler.type = "local"'
            ) from error
        if self._asleep:
            self._llm.wake_up(tags=["kv_cache"])
            self._asleep = False
        if not self._llm.reset_prefix_cache():
            raise SamplerError(
                'vLLM keeps what it read with the old weights: set sampler.type = "local", or another version of vLLM'
            )

    def sleep(self) -> None:
        """See Engine."""
        if self._may_sleep and not self._asleep:
            self._llm.sleep(level=_SLEEP_LEVEL)
            self._asleep = True

    def close(self) -> None:
        """See Engine."""
        self._llm.llm_engine.engine_core.shutdown()


def _pack_heads(model: nn.Module) -> None:
    """On a CPU vLLM multiplies by packed copies of its weights, and forgets to pack a head that shares the embedding's again.

    Without this a student with tied embeddings is sampled from with its old head (vLLM 0.32: 0.18 nats a token after weights moved by 0.02).
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def _answer(output: Any, *, told: bool) -> Answer:
    ids = tuple(output.token_ids)
    if not told:
        return Answer(ids, ())
    return Answer(ids, tuple(place[token].logprob for token, place in zip(ids, output.logprobs, strict=True)))


def start(path: str, config: VllmConfig, *, dtype: Literal["bf16", "fp32"], max_tokens: int) -> VllmEngine:
    """Start vLLM with the model in a Hugging Face directory; `max_tokens` of a prompt with its answer.

    Raises ConfigError where vLLM is not installed, SamplerError where it does not start.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "sampling with vLLM needs it: pip install 'swe-srl[vllm]' (docs/vllm.md), or set sampler.type = \"local\""
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    may_sleep = config.sleep and current_platform.is_cuda()
    cache_gib = config.kv_cache_gib or (CPU_CACHE_GIB if on_cpu else None)
    try:
        llm = LLM(
            path,
            dtype=_DTYPES[dtype],
            max_model_len=max_tokens,
            tensor_parallel_size=config.tensor_parallel_size,
            gpu_memory_utilization=config.memory_share,
            kv_cache_memory_bytes=None if cache_gib is None else round(cache_gib * 2**30),
            max_num_seqs=config.max_parallel,
            block_size=CPU_BLOCK_SIZE if on_cpu else None,
            enable_prefix_caching=True,
            **(_whole_prompts(max_tokens) if on_cpu else {}),
            # Compiled for a CPU, a model is traced once, and new packed weights may have no way in.
            enforce_eager=config.eager or on_cpu,
            enable_sleep_mode=may_sleep,
            logprobs_mode="processed_logprobs",
            generation_config="vllm",
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise SamplerError(
            f'vLLM does not start with {path} ({_said(error)}): see docs/vllm.md, change [sampler], or set sampler.type = "local"'
        ) from error
    return VllmEngine(llm, on_cpu=on_cpu, may_sleep=may_sleep, hands_over=config.tensor_parallel_size == 1)


def _whole_prompts(max_tokens: int) -> dict[str, Any]:
    """Settings by which no prompt is read in two passes.

    Between two such passes vLLM winds a row's own random numbers back, which a CPU's generator cannot do: it fails (0.32).
    """
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": max(CPU_PASS_TOKENS, max_tokens)}


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".")[:200] if lines else type(error).__name__
