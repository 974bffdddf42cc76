"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft: a student of which only a few small matrices learn.

The layers are put into the model in place, so that the tree's attention, the sampler and the trainer see the model they
know. The adapter is held like any weight that learns: fp32 masters, and a copy in the model's dtype to compute with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from swe_srl.errors import ConfigError
from swe_srl.training.config import LoraConfig

if TYPE_CHECKING:
    import peft
    from transformers import PreTrainedModel

ADAPTER = "adapter"
"""Folder of a checkpoint that holds the adapter by itself, as peft's `PeftModel.from_pretrained` reads it."""

_BASE, _DOWN, _UP = ".base_layer.", ".lora_A.default.", ".lora_B.default."


def add_adapter(model: PreTrainedModel, config: LoraConfig, seed: int) -> None:
    """Freeze `model` and put an adapter into it that changes nothing yet. Raises ConfigError where it has no such layers."""
    try:
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("lora needs peft: pip install 'swe-srl[train]'") from error
    with torch.random.fork_rng():  # the same in every process
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(_of_peft(config), model)
        except ValueError as error:
            raise ConfigError(f"lora.targets = {list(config.targets)}: {error}") from error


def _of_peft(config: LoraConfig, base_model: str | None = None) -> peft.LoraConfig:
    from peft import LoraConfig as PeftConfig

    return PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(config.targets) or "all-linear",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_model,
    )


class Parts(NamedTuple):
    """A model's weights with an adapter, taken apart."""

    student: dict[str, Tensor]
    """The model that they make together, under the names that it had without an adapter."""
    adapter: dict[str, Tensor]


def taken_apart(weights: dict[str, Tensor], config: LoraConfig) -> Parts:
    """All weights of a model with an adapter → the merged model, and the adapter.

    They are added in fp32 and rounded once; what the model's dtype cannot hold is kept by the adapter alone.
    """
    adapter = {name: tensor for name, tensor in weights.items() if ".lora_" in name}
    student: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name in adapter:
            continue
        place, found, kind = name.rpartition(_BASE)
        merged = tensor
        if found and kind == "weight":
            down, up = adapter[f"{place}{_DOWN}weight"], adapter[f"{place}{_UP}weight"]
            merged = (tensor.float() + up.float() @ down.float() * (config.alpha / config.rank)).to(tensor.dtype).cpu()
        student[f"{place}.{kind}" if found else name] = merged
    return Parts(student, adapter)


def write_adapter(folder: Path, adapter: dict[str, Tensor], config: LoraConfig, base_model: str) -> None:
    """As peft reads it."""
    from safetensors.torch import save_file

    folder.mkdir()
    _of_peft(config, base_model).save_pretrained(folder)
    named = {
        f"base_model.model.{name.replace('.default.', '.')}": tensor.contiguous() for name, tensor in adapter.items()
    }
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
