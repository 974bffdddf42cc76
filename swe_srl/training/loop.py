"""Config, examples and a student → checkpoints. The algorithm on one page: collect → reward → select → loss → update."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch

from swe_srl.errors import NothingToLearn
from swe_srl.policy.load import load_student
from swe_srl.policy.local import LocalPolicy
from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.policy.tree import TokenTree, micro_batches, num_plain_tokens
from swe_srl.schema import Checkpoint, Task
from swe_srl.store import Run
from swe_srl.training import checkpoint
from swe_srl.training.algorithms.base import Algorithm, Batch
from swe_srl.training.algorithms.rlvr import Arena, Rlvr
from swe_srl.training.algorithms.sft import Sft
from swe_srl.training.algorithms.srl import Srl
from swe_srl.training.config import RlvrConfig, SftConfig, TrainConfig
from swe_srl.training.data import Cursor, Example
from swe_srl.training.metrics import METRICS, STALLED, UpdateMetrics, forget_after, noting_a_stall, spent
from swe_srl.training.objective import Group, Mismatch
from swe_srl.training.optimizer import MasterOptimizer, freeze_below, learning_rate, place
from swe_srl.training.probe import solvable
from swe_srl.training.sampling import measured, open_sampler, require_agreement, weights_of

Progress = Callable[[int, int], None]
Data = Sequence[Example] | Sequence[Task]


def train(
    config: TrainConfig, data: Data, run: Run, *, arena: Arena | None = None, progress: Progress | None = None
) -> Path:
    """Train until the last update, from the newest checkpoint in `run` if there is one; the directory of the final checkpoint.

    A run that was killed and called again ends with the same weights as one that was not (fp32 on CPU: bit for bit; for
    RLVR as far as its boxes repeat themselves).

    Args:
        config: how.
        data: expert steps; for RLVR tasks.
        run: where checkpoints and metrics are written.
        arena: where RLVR's episodes take place.
        progress: is told (updates done, of).
    """
    (run.path / STALLED).unlink(missing_ok=True)  # it may go on now
    settings = config.algorithm
    if isinstance(settings, RlvrConfig) and settings.probe:
        assert arena is not None, "RLVR needs boxes and a grader"
        tasks = [item for item in data if isinstance(item, Task)]
        with noting_a_stall(run.path, update=0):
            data = solvable(tasks, lambda: _student(config, config.model), config, settings, arena, run)
    total = config.num_updates(len(data))
    found = checkpoint.load(run.path)
    done = 0 if found is None else found[1].update
    num_tokens = spent(run.path, updates=done).total
    if found is not None and _is_finished(config, total, done, num_tokens):
        return found[0]
    policy = _student(config, config.model if found is None else str(found[0]))
    if config.trainable_layers is not None:
        freeze_below(policy.model, config.trainable_layers)
    if config.activation_checkpointing:
        policy.checkpoint_activations()
    sampler = open_sampler(config, policy)
    trainer = Trainer(
        config, policy, sampler, make_algorithm(config, data, sampler, arena), _cursor(config, data), total
    )
    if found is not None:
        assert found[2] is not None, "an unfinished run's checkpoint has the trainer's state"
        trainer.restore(found[2])
    forget_after(run.path, done)
    trainer.num_tokens = num_tokens
    path = run.path
    saved = done

    def save(update: int, state: dict[str, Any] | None) -> Path:
        made = Checkpoint(path=".", base_model=config.model, algorithm=config.algorithm.type, update=update)
        return checkpoint.save(run.path, policy, made, state, keep_last=config.keep_last)

    with closing(sampler), run.append(METRICS, UpdateMetrics) as log:
        for update in range(done + 1, total + 1):
            if progress is not None:
                progress(int(trainer.place(update)) - 1, total)
            try:
                with noting_a_stall(run.path, update):
                    log.write(trainer.update(update))
            except NothingToLearn:
                if update - 1 > saved:
                    save(update - 1, trainer.state())
                raise
            is_last = _is_finished(config, total, update, trainer.num_tokens)
            if is_last or update % config.save_every == 0:
                path, saved = save(update, None if is_last else trainer.state()), update
            if is_last:
                break
    if progress is not None:
        progress(total, total)
    return path


def _is_finished(config: TrainConfig, num_updates: int, update: int, num_tokens: int) -> bool:
    """Whether the run ends with this update: it is the last one, or the budget is spent."""
    return update >= num_updates or (config.budget_tokens is not None and num_tokens >= config.budget_tokens)


def _student(config: TrainConfig, model: str) -> LocalPolicy:
    return load_student(model, dtype=config.dtype, device=config.device, max_prompt_tokens=config.max_prompt_tokens)


def _cursor(config: TrainConfig, data: Data) -> Cursor:
    examples = [item for item in data if isinstance(item, Example)]
    if not examples:
        return Cursor([item.task_id for item in data if isinstance(item, Task)], config.seed)
    by_ease = config.difficulty is not None and config.difficulty.order == "easy_first"
    ease = [example.ease for example in examples] if by_ease else None
    if config.shuffle == "steps":
        return Cursor([example.step.step_id for example in examples], config.seed, ease)
    return Cursor([example.step.trajectory_id for example in examples], config.seed, ease)


def make_algorithm(config: TrainConfig, data: Data, sampler: TokenPolicy, arena: Arena | None = None) -> Algorithm:
    """The algorithm that `config` names; `sampler` draws its answers."""
    settings = config.algorithm
    examples = [item for item in data if isinstance(item, Example)]
    if isinstance(settings, SftConfig):
        return Sft(settings, config, examples, sampler)
    reference = None
    if settings.objective.kl_weight:
        reference = load_student(config.model, dtype=config.dtype, device=config.device)
    if isinstance(settings, RlvrConfig):
        assert arena is not None, "RLVR needs boxes and a grader"
        return Rlvr(settings, config, [item for item in data if isinstance(item, Task)], sampler, arena, reference)
    return Srl(settings, config, examples, sampler, reference)


class Trained(NamedTuple):
    """Sums over the micro-batches of one update."""

    loss: float
    clip_share: float
    kl: float
    negative_log_prob: float
    num_answer_tokens: int
    num_tokens: int
    mismatch: Mismatch


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
    ) -> None:
        """`sampler` may be `policy` itself, or an engine that is told the new weights after each update."""
        self._config = config
        self._policy = policy
        self._sampler = sampler
        self._is_tested = sampler.is_student
        self._algorithm = algorithm
        self._cursor = cursor
        self._num_updates = num_updates
        self.num_tokens = 0
        """That went through the model so far."""
        torch.manual_seed(config.seed)
        self._optimizer = MasterOptimizer(policy.model, config.optimizer)

    def update(self, number: int) -> UpdateMetrics:
        """Take update `number` (from 1). Raises SamplerError where the sampler has other weights than the student."""
        begun = time.perf_counter()
        position, num_cut = self._cursor.position, self._sampler.num_prompts_cut
        try:
            batch = self._algorithm.collect(self._cursor, number)
        except NothingToLearn:  # nothing has happened to the student: this is its state before the update
            self._cursor.position, self._sampler.num_prompts_cut = position, num_cut
            raise
        collected = time.perf_counter()
        self._sampler.rest()
        sums = self._backward(batch)
        require_agreement(sums.mismatch, self._config, f"before update {number}")
        lr = learning_rate(self._config.optimizer, self.place(number), self._num_updates)
        norm = self._optimizer.step(lr)
        self._sampler.update(weights_of(self._policy.model))
        self._test_sampler(batch, number)
        self.num_tokens += sums.num_tokens + batch.num_sampled_tokens
        return UpdateMetrics(
            update=number, num_updates=self._num_updates, loss=sums.loss, lr=lr, grad_norm=norm,
            entropy=sums.negative_log_prob / sums.num_answer_tokens, clip_share=sums.clip_share, kl=sums.kl,
            sampler_gap_mean=sums.mismatch.mean, sampler_gap_max=sums.mismatch.max, truncated_share=sums.mismatch.truncated_share,
            num_tokens=sums.num_tokens, num_sampled_tokens=batch.num_sampled_tokens, num_plain_tokens=num_plain_tokens(batch.groups), num_answer_tokens=sums.num_answer_tokens,
            num_prompts_cut=self._sampler.num_prompts_cut, cursor=self._cursor.position, collected=batch.metrics,
            collect_s=collected - begun, train_s=time.perf_counter() - collected,
        )  # fmt: skip

    def place(self, number: int) -> float:
        """Where in the schedule update `number` stands: further on than its number where the budget is spent faster."""
        return place(number, self._num_updates, self.num_tokens, self._config.budget_tokens)

    def _test_sampler(self, batch: Batch, number: int) -> None:
        """Once, after the first update of this process: what the sampler draws now must be the student's."""
        if not self._is_tested:
            found = measured(
                self._sampler, self._policy, batch.groups, self._config, temperature=self._algorithm.temperature
            )
            require_agreement(found, self._config, f"after update {number}")
            self._is_tested = True

    def _backward(self, batch: Batch) -> Trained:
        device = self._policy.model.device
        self._policy.model.train()
        loss_sum = clip_share = kl = negative_log_prob = 0.0
        num_answer_tokens = num_tokens = 0
        mismatch = Mismatch()
        for indices in micro_batches(batch.groups, self._config.micro_batch_tokens):
            groups = [batch.groups[index] for index in indices]
            weights = torch.cat([batch.weights[index] for index in indices]).to(device)
            tree = TokenTree(groups)
            log_probs = token_log_probs(self._policy.model, tree.row(device), temperature=self._algorithm.temperature)
            loss = self._algorithm.loss(log_probs, groups, weights)
            loss.value.backward()  # type: ignore[no-untyped-call]
            self._optimizer.accumulate()
            loss_sum += loss.value.item()
            clip_share += loss.clip_share
            kl += loss.kl
            mismatch = mismatch.joined(loss.mismatch)
            negative_log_prob -= log_probs.detach().sum().item()
            num_answer_tokens += len(log_probs)
            num_tokens += tree.num_tokens
        return Trained(loss_sum, clip_share, kl, negative_log_prob, num_answer_tokens, num_tokens, mismatch)

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
