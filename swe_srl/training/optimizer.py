"""Gradients of the working model → fp32 master weights → working model again.

A weight held in bfloat16 does not move at small learning rates: an AdamW step of 3e-5 is below half a unit in the last
place of most weights. So the optimizer owns fp32 copies, to which gradients are added after every micro-batch, and the
model computes with a bfloat16 copy of them. A model in fp32 is its own master.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from swe_srl.errors import ConfigError
from swe_srl.training.config import OptimizerConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def learning_rate(config: OptimizerConfig, update: float, num_updates: int) -> float:
    """Of the update with this number (from 1): a straight warm-up, then constant, or a cosine that ends at 0.

    A number between two updates is a place in the schedule that no update has.
    """
    warmup = round(config.warmup_share * num_updates)
    if update <= warmup:
        return config.lr * update / warmup
    if config.schedule == "constant":
        return config.lr
    progress = (update - warmup - 1) / max(1, num_updates - warmup)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


def place(update: int, num_updates: int, num_tokens: int, budget: int | None) -> float:
    """Where in the schedule the update with this number stands: further on than its number where the budget, of which
    `num_tokens` are spent, goes faster than the updates.
    """
    if budget is None:
        return update
    return max(update, 1 + num_tokens / budget * num_updates)


def freeze_below(model: PreTrainedModel, num_layers: int) -> None:
    """Let only the last `num_layers` transformer layers and the norm behind them learn.

    Raises ConfigError when the model has fewer layers.
    """
    layers = model.base_model.layers
    if num_layers > len(layers):
        raise ConfigError(f"trainable_layers = {num_layers}, but the model has {len(layers)} layers")
    model.requires_grad_(False)
    for module in (*layers[len(layers) - num_layers :], model.base_model.norm):
        module.requires_grad_(True)


class MasterOptimizer:
    """AdamW over fp32 masters of a model's parameters."""

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        self._config = config
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._names = [name for name, _ in named]
        self._working = [parameter for _, parameter in named]
        self._masters: list[Tensor] = [
            parameter if parameter.dtype == torch.float32 else parameter.detach().float().requires_grad_()
            for parameter in self._working
        ]
        self._adam = torch.optim.AdamW(
            self._masters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )

    def accumulate(self) -> None:
        """Move the working model's gradients into the masters; call after every backward."""
        for working, master in zip(self._working, self._masters, strict=True):
            if working is master or working.grad is None:
                continue
            if master.grad is None:
                master.grad = working.grad.float()
            else:
                master.grad.add_(working.grad)
            working.grad = None

    def step(self, lr: float) -> float:
        """Clip, take one AdamW step, refresh the working model; returns the gradient's norm before clipping."""
        norm = float(nn.utils.clip_grad_norm_(self._masters, self._config.max_grad_norm, error_if_nonfinite=True))
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._refresh()
        return norm

    @torch.no_grad()
    def _refresh(self) -> None:
        for working, master in zip(self._working, self._masters, strict=True):
            if working is not master:
                working.copy_(master)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on exactly."""
        masters = {name: master.detach() for name, master in zip(self._names, self._masters, strict=True)}
        return {"masters": masters, "adam": self._adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned, masters and working model included."""
        with torch.no_grad():
            for name, master in zip(self._names, self._masters, strict=True):
                master.copy_(state["masters"][name])
        self._adam.load_state_dict(state["adam"])
        self._refresh()
