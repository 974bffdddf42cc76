"""Supervised fine-tuning: the batch is the experts' own answers, the loss their negative log-likelihood."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from swe_srl.dialogue import format_completion
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.training.algorithms.base import Batch
from swe_srl.training.config import SftConfig, TrainConfig
from swe_srl.training.data import Cursor, Example
from swe_srl.training.objective import Group, Loss, cross_entropy, token_weights


class Sft:
    """See Algorithm."""

    temperature = 1.0

    def __init__(
        self, settings: SftConfig, config: TrainConfig, examples: Sequence[Example], policy: TokenPolicy
    ) -> None:
        self._settings = settings
        self._config = config
        self._examples = examples
        self._policy = policy

    def collect(self, cursor: Cursor, update: int) -> Batch:
        """The next `batch_size` expert steps."""
        del update
        groups = [self._group(self._examples[index]) for index in cursor.take(self._settings.batch_size)]
        num_cut = sum(group.completions[0][-1] != self._policy.codec.end_of_turn for group in groups)
        return Batch(groups, token_weights(groups, "token", self._config.max_new_tokens), {"num_targets_cut": num_cut})

    def _group(self, example: Example) -> Group:
        prompt = self._policy.prompt(example.messages(self._config.context))
        target = self._policy.codec.target(format_completion(example.step.thought, example.step.command))
        return Group(example.step.step_id, prompt.ids, (target[: self._config.max_new_tokens],))

    def loss(self, log_probs: Tensor, groups: list[Group], weights: Tensor) -> Loss:
        """Token-wise cross-entropy."""
        del groups
        return cross_entropy(log_probs, weights)

    def state(self) -> list[Group]:
        """Nothing is kept between updates."""
        return []

    def restore(self, state: list[Group]) -> None:
        """See Algorithm."""
        assert not state, "SFT keeps no groups between updates"
