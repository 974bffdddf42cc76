"""One update: collect → reward → select → tree → loss → step. The weights, the optimizer and the place in the data change here."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from swe_srl.errors import NothingToLearn
from swe_srl.policy.local import LocalPolicy
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.policy.tree import TokenTree, micro_batches, num_plain_tokens
from swe_srl.schema import Checkpoint
from swe_srl.training import checkpoint
from swe_srl.training.algorithms.base import Algorithm, Batch
from swe_srl.training.config import TrainConfig
from swe_srl.training.data import Cursor
from swe_srl.training.metrics import UpdateMetrics
from swe_srl.training.objective import Group, Mismatch
from swe_srl.training.optimizer import MasterOptimizer, learning_rate, place
from swe_srl.training.parallel import Student, whole_weights
from swe_srl.training.sampling import measured, require_agreement, weights_of
from swe_srl.training.team import ALONE, Team


class Trained(NamedTuple):
    """Sums over the micro-batches of one update."""

    loss: float = 0.0
    clip_share: float = 0.0
    kl: float = 0.0
    negative_log_prob: float = 0.0
    num_answer_tokens: int = 0
    num_tokens: int = 0
    mismatch: Mismatch = Mismatch()

    def joined(self, other: Trained) -> Trained:
        """The sums of both."""
        return Trained(
            loss=self.loss + other.loss,
            clip_share=self.clip_share + other.clip_share,
            kl=self.kl + other.kl,
            negative_log_prob=self.negative_log_prob + other.negative_log_prob,
            num_answer_tokens=self.num_answer_tokens + other.num_answer_tokens,
            num_tokens=self.num_tokens + other.num_tokens,
            mismatch=self.mismatch.joined(other.mismatch),
        )


class Trainer:
    """A student, what samples for it, its optimizer and its place in the data."""

    def __init__(
        self,
        config: TrainConfig,
        policy: LocalPolicy,
        sampler: TokenPolicy,
        algorithm: Algorithm,
        cursor: Cursor,
        num_updates: int,
        team: Team = ALONE,
    ) -> None:
        """`sampler` may be `policy` itself, or an engine that is told the new weights after each update."""
        self._config = config
        self._policy = policy
        self._sampler = sampler
        self._is_tested = sampler.is_student
        self._algorithm = algorithm
        self._cursor = cursor
        self._num_updates = num_updates
        self._team = team
        self.num_tokens = 0
        """That went through the model so far."""
        torch.manual_seed(config.seed)
        self._student = Student(policy.model, team)
        self._optimizer = MasterOptimizer(policy.model, config.optimizer)

    def update(self, number: int) -> UpdateMetrics:
        """Take update `number` (from 1). Raises SamplerError where the sampler has other weights than the student."""
        begun = time.perf_counter()
        batch = self._collect(number)
        collected = time.perf_counter()
        self._sampler.rest()
        sums = self._backward(batch)
        require_agreement(sums.mismatch, self._config, f"before update {number}")
        lr = learning_rate(self._config.optimizer, self.place(number), self._num_updates)
        norm = self._optimizer.step(lr)
        self._sampler.update(weights_of(self._policy.model, self._config.lora))
        self._test_sampler(batch, number)
        self.num_tokens += sums.num_tokens + batch.num_sampled_tokens
        return UpdateMetrics(
            update=number, num_updates=self._num_updates, loss=sums.loss, lr=lr, grad_norm=norm,
            entropy=sums.negative_log_prob / sums.num_answer_tokens, clip_share=sums.clip_share, kl=sums.kl,
            sampler_gap_mean=sums.mismatch.mean, sampler_gap_max=sums.mismatch.max, truncated_share=sums.mismatch.truncated_share,
            num_tokens=sums.num_tokens, num_sampled_tokens=batch.num_sampled_tokens,
            num_plain_tokens=num_plain_tokens(batch.groups), num_answer_tokens=sums.num_answer_tokens,
            num_prompts_cut=self._sampler.num_prompts_cut, cursor=self._cursor.position, collected=batch.metrics,
            collect_s=collected - begun, train_s=time.perf_counter() - collected,
        )  # fmt: skip

    def place(self, number: int) -> float:
        """Where in the schedule update `number` stands: further on than its number where the budget is spent faster."""
        return place(number, self._num_updates, self.num_tokens, self._config.budget_tokens)

    def _collect(self, number: int) -> Batch:
        position, num_cut = self._cursor.position, self._sampler.num_prompts_cut
        try:
            with self._student.gathered():
                return self._algorithm.collect(self._cursor, number)
        except NothingToLearn:  # nothing has happened to the student: this is its state before the update
            self._cursor.position, self._sampler.num_prompts_cut = position, num_cut
            raise

    def _backward(self, batch: Batch) -> Trained:
        """The gradient of the whole batch, of which each process of the team works through its share."""
        self._policy.model.train()
        sums = Trained()
        for indices in self._team.deal(list(micro_batches(batch.groups, self._config.micro_batch_tokens))):
            if indices is None:
                self._student.idle()
            else:
                sums = sums.joined(self._one_pass(batch, indices))
            self._optimizer.accumulate()
        first, *others = self._team.gather(sums)
        for other in others:
            first = first.joined(other)
        return first

    def _one_pass(self, batch: Batch, indices: list[int]) -> Trained:
        device = self._policy.model.device
        groups = [batch.groups[index] for index in indices]
        weights = torch.cat([batch.weights[index] for index in indices]).to(device)
        tree = TokenTree(groups)
        log_probs = self._student(tree.row(device), self._algorithm.temperature)
        loss = self._algorithm.loss(log_probs, groups, weights)
        loss.value.backward()  # type: ignore[no-untyped-call]
        return Trained(
            loss.value.item(),
            loss.clip_share,
            loss.kl,
            -log_probs.detach().sum().item(),
            len(log_probs),
            tree.num_tokens,
            loss.mismatch,
        )

    def _test_sampler(self, batch: Batch, number: int) -> None:
        """Once, after the first update of this process: what the sampler draws now must be the student's."""
        if not self._is_tested:
            found = measured(
                self._sampler, self._policy, batch.groups, self._config, temperature=self._algorithm.temperature
            )
            require_agreement(found, self._config, f"after update {number}")
            self._is_tested = True

    def save(self, run: Path, update: int, *, is_last: bool) -> Path:
        """Write the checkpoint after `update`; the last one without what only a resumed run needs. Its directory."""
        config = self._config
        state = None if is_last else self.state()
        whole = whole_weights(self._policy.model) if self._team.size > 1 or config.lora else None
        if self._team.is_lead:
            made = Checkpoint(path=".", base_model=config.model, algorithm=config.algorithm.type, update=update)
            student = partial(checkpoint.write_student, policy=self._policy, weights=whole, config=config)
            checkpoint.save(run, student, made, state, keep_last=config.keep_last)
        return checkpoint.place(run, update)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs beside the model's directory."""
        return {
            "optimizer": self._optimizer.state(),
            "cursor": self._cursor.position,
            "left_over": [group._asdict() for group in self._algorithm.state()],
            "num_prompts_cut": self._sampler.num_prompts_cut,
            "torch_rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self._optimizer.restore(state["optimizer"])
        self._cursor.position = state["cursor"]
        self._algorithm.restore([Group(**group) for group in state["left_over"]])
        self._sampler.num_prompts_cut = state["num_prompts_cut"]
        torch.set_rng_state(state["torch_rng"])
        self._sampler.update(weights_of(self._policy.model, self._config.lora))
