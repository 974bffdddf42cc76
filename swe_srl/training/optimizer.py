"""Gradients of the working model → fp32 master weights → working model again.

A weight held in bfloat16 does not move at small learning rates: an AdamW step of 3e-5 is below half a unit in the last
place of most weights. So the optimizer owns fp32 copies, to which gradients are added after every micro-batch, and the
model computes with a bfloat16 copy of them. A model in fp32 is its own master. Where the weights are shared out among
processes, so are masters, gradients and the optimizer's state; what is saved of them is whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from swe_srl.errors import ConfigError
from swe_srl.training.config import OptimizerConfig
from swe_srl.training.parallel import part_of, whole

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
        self._adam = _adam(self._masters, config)

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
        norm = _total_norm([master.grad for master in self._masters if master.grad is not None])
        nn.utils.clip_grads_with_norm_(self._masters, self._config.max_grad_norm, norm)
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._refresh()
        return float(norm)

    @torch.no_grad()
    def _refresh(self) -> None:
        for working, master in zip(self._working, self._masters, strict=True):
            if working is not master:
                working.copy_(master)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on exactly, with any number of processes; see `parallel.whole`."""
        masters = {name: whole(master.detach()) for name, master in zip(self._names, self._masters, strict=True)}
        adam = self._adam.state_dict()
        means = {
            number: {key: whole(value) if isinstance(value, Tensor) else value for key, value in state.items()}
            for number, state in adam["state"].items()
        }
        return {"masters": masters, "adam": adam | {"state": means}}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned, masters and working model included."""
        with torch.no_grad():
            for name, master in zip(self._names, self._masters, strict=True):
                master.copy_(part_of(state["masters"][name], master))
        adam = state["adam"]
        means = {
            number: {key: _own(value, self._masters[number]) for key, value in of_master.items()}
            for number, of_master in adam["state"].items()
        }
        self._adam.load_state_dict(adam | {"state": means})
        self._refresh()


def _adam(masters: Sequence[Tensor], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Raises ConfigError where 8-bit states are asked for and cannot be had."""
    settings: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "weight_decay": config.weight_decay}
    if config.states == "fp32":
        return torch.optim.AdamW(masters, fused=True, **settings)
    if any(isinstance(master, DTensor) for master in masters):
        raise ConfigError(
            "optimizer.states = '8bit' is for one process: where several share the weights out, leave it at 'fp32'"
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            "optimizer.states = '8bit' needs bitsandbytes: pip install 'swe-srl[8bit]', or leave it at 'fp32'"
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(masters, **settings)
    return optimizer


def _total_norm(grads: Sequence[Tensor]) -> Tensor:
    """Of all gradients, over all processes. Raises RuntimeError where it is not finite."""
    norm = nn.utils.get_total_norm(grads)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if not norm.isfinite():
        raise RuntimeError(f"the gradient's norm is {float(norm)}")
    return norm


def _own(value: Any, master: Tensor) -> Any:
    """A mean of AdamW's as `master` is shared out; anything else as it is."""
    return part_of(value, master) if isinstance(value, Tensor) and value.shape == master.shape else value
