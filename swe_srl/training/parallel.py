"""A student whose weights the processes of a team share out, layer by layer (FSDP2), and put together where it is needed.

Gradients are summed over the processes, not averaged: each token's weight in the loss is fixed before the batch is dealt
out, so the sum is what one process would have added up, and the number of processes changes no result beyond rounding.

For sampling the weights are put together once for all answers of an update, and dropped afterwards: processes write
answers of different lengths, so no layer may wait for the other processes while they do. A second, whole copy would
cost its memory all of the time and could be out of date; this one is made of the weights themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.tree import TokenTree, TreeRow
from swe_srl.training.team import Team

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Nothing(NamedTuple):
    """The shortest prompt and answer there are."""

    prompt_ids: tuple[int, ...] = (0,)
    completions: tuple[tuple[int, ...], ...] = ((0,),)


class Student(nn.Module):
    """A model as training sees it: a tree's row in, log-probabilities out. Alone it is `token_log_probs` and nothing else.

    It is one module, so that embeddings and head, which may be the same tensor, are put together once for a pass.
    """

    def __init__(self, model: PreTrainedModel, team: Team) -> None:
        """Shares out the weights of `model` in place, where there is anybody to share them with."""
        super().__init__()
        self.model = model
        self._team = team
        self._parts: list[FSDPModule] = []
        if team.size > 1:
            self._share_out()

    def _share_out(self) -> None:
        mesh = init_device_mesh(self.model.device.type, (self._team.size,))
        # In fp32 for the sum alone: the parts stay in the dtype of the model.
        sums = MixedPrecisionPolicy(reduce_dtype=torch.float32)
        for module in (*self.model.base_model.layers, self):
            part = cast("FSDPModule", fully_shard(module, mesh=mesh, mp_policy=sums))
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo has no other
            self._parts.append(part)
        with torch.no_grad():  # FSDP takes what runs first for the root, and sampling would begin with a layer
            self(self._nothing(), 1.0)
        self._parts[-1].reshard()  # the root stays whole after a pass without a backward

    def forward(self, row: TreeRow, temperature: float) -> Tensor:
        """See `token_log_probs`."""
        return token_log_probs(self.model, row, temperature=temperature)

    def idle(self) -> None:
        """Take part in a pass, forward and backward, without anything to learn from: the others' passes need every process."""
        (self(self._nothing(), 1.0).sum() * 0.0).backward()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, every process has all weights, and the model can be called without the other processes."""
        *layers, root = self._parts or (None,)
        if root is None:
            yield
            return
        for part in self._parts:
            part.unshard()
        for layer in layers:
            layer.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for layer in layers:
                layer.set_reshard_after_forward(True, recurse=False)
            for part in self._parts:
                part.reshard()

    def _nothing(self) -> TreeRow:
        return TokenTree([_Nothing()]).row(self.model.device)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is shared out: on the CPU in the lead, empty in the other processes. Any other is itself."""
    if not isinstance(tensor, DTensor):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if dist.get_rank() == 0 else torch.empty(0)


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, shared out as `like` is. `tensor` itself where `like` is whole."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and saved buffer by name, as `whole` gives them; tied ones once."""
    saved = model.state_dict()
    named = {name: tensor for name, tensor in model.named_buffers() if name in saved}
    named |= {name: parameter.detach() for name, parameter in model.named_parameters()}
    return {name: whole(tensor) for name, tensor in named.items()}
