"""Config, examples and a student → checkpoints. The algorithm on one page: collect → reward → select → loss → update."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from swe_srl.policy.load import last_checkpoint, load_student
from swe_srl.policy.local import LocalPolicy
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
from swe_srl.training.lora import add_adapter
from swe_srl.training.metrics import METRICS, UpdateMetrics, forget_after
from swe_srl.training.objective import Group
from swe_srl.training.optimizer import MasterOptimizer, freeze_below, learning_rate
from swe_srl.training.parallel import Student, whole_weights
from swe_srl.training.probe import solvable
from swe_srl.training.team import ALONE, Team
from swe_srl.training.trackers import tracking

Progress = Callable[[int, int], None]
Data = Sequence[Example] | Sequence[Task]


def train(
    config: TrainConfig,
    data: Data,
    run: Run,
    *,
    arena: Arena | None = None,
    progress: Progress | None = None,
    team: Team = ALONE,
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
        team: the processes that train together; each calls this with the same arguments.
    """
    settings = config.algorithm
    if isinstance(settings, RlvrConfig) and settings.probe:
        assert arena is not None, "RLVR needs boxes and a grader"
        tasks = [item for item in data if isinstance(item, Task)]
        data = solvable(tasks, lambda: _student(config, config.model), config, settings, arena, run, team)
    total = config.num_updates(len(data))
    found = checkpoint.load(team.agree(last_checkpoint(run.path)))
    if found is not None and found[1].update >= total:
        return found[0]
    policy = _student(config, config.model if found is None or config.lora else str(found[0]))
    if config.lora is not None:
        add_adapter(policy.model, config.lora, config.seed)
    if config.trainable_layers is not None:
        freeze_below(policy.model, config.trainable_layers)
    if config.activation_checkpointing:
        policy.checkpoint_activations()
    algorithm = make_algorithm(config, data, policy, arena, team)
    trainer = Trainer(config, policy, algorithm, _cursor(config, data), total, team)
    done = 0
    if found is not None:
        done = found[1].update
        assert found[2] is not None, "an unfinished run's checkpoint has the trainer's state"
        trainer.restore(found[2])
    if team.is_lead:
        forget_after(run.path, done)
    path = run.path
    names = config.trackers if team.is_lead else ()
    with (
        team.appending(run, METRICS, UpdateMetrics) as write,
        tracking(names, run, config.model_dump(mode="json"), done + 1) as trackers,
    ):
        for update in range(done + 1, total + 1):
            if progress is not None:
                progress(update - 1, total)
            metrics = trainer.update(update)
            write(metrics)
            trackers.log(metrics)
            if update == total or update % config.save_every == 0:
                path = trainer.save(run.path, update)
    if progress is not None:
        progress(total, total)
    return path


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


def make_algorithm(
    config: TrainConfig, data: Data, policy: LocalPolicy, arena: Arena | None = None, team: Team = ALONE
) -> Algorithm:
    """The algorithm that `config` names."""
    settings = config.algorithm
    examples = [item for item in data if isinstance(item, Example)]
    if isinstance(settings, SftConfig):
        return Sft(settings, config, examples, policy)
    reference = None
    if settings.objective.kl_weight:
        reference = load_student(config.model, dtype=config.dtype, device=config.device)
    if isinstance(settings, RlvrConfig):
        assert arena is not None, "RLVR needs boxes and a grader"
        return Rlvr(settings, config, [item for item in data if isinstance(item, Task)], policy, arena, reference, team)
    return Srl(settings, config, examples, policy, reference, team)


class Trained(NamedTuple):
    """Sums over the micro-batches of one update, of all processes."""

    loss: float
    clip_share: float
    kl: float
    negative_log_prob: float
    num_answer_tokens: float
    num_tokens: float


class Trainer:
    """A student, its optimizer and its place in the data."""

    def __init__(
        self,
        config: TrainConfig,
        policy: LocalPolicy,
        algorithm: Algorithm,
        cursor: Cursor,
        num_updates: int,
        team: Team = ALONE,
    ) -> None:
        self._config = config
        self._policy = policy
        self._algorithm = algorithm
        self._cursor = cursor
        self._num_updates = num_updates
        self._team = team
        torch.manual_seed(config.seed)
        self._student = Student(policy.model, team)
        self._optimizer = MasterOptimizer(policy.model, config.optimizer)

    def update(self, number: int) -> UpdateMetrics:
        """Take update `number` (from 1)."""
        begun = time.perf_counter()
        with self._student.gathered():
            batch = self._algorithm.collect(self._cursor, number)
        collected = time.perf_counter()
        sums = self._backward(batch)
        lr = learning_rate(self._config.optimizer, number, self._num_updates)
        norm = self._optimizer.step(lr)
        self._policy.forget()
        return UpdateMetrics(
            update=number, num_updates=self._num_updates, loss=sums.loss, lr=lr, grad_norm=norm,
            entropy=sums.negative_log_prob / sums.num_answer_tokens, clip_share=sums.clip_share, kl=sums.kl,
            num_tokens=round(sums.num_tokens), num_plain_tokens=num_plain_tokens(batch.groups),
            num_answer_tokens=round(sums.num_answer_tokens),
            num_prompts_cut=self._policy.num_prompts_cut, cursor=self._cursor.position, collected=batch.metrics,
            collect_s=collected - begun, train_s=time.perf_counter() - collected,
        )  # fmt: skip

    def _backward(self, batch: Batch) -> Trained:
        device = self._policy.model.device
        self._policy.model.train()
        sums = Trained(0.0, 0.0, 0.0, 0.0, 0, 0)
        for indices in self._team.deal(list(micro_batches(batch.groups, self._config.micro_batch_tokens))):
            if indices is None:
                self._student.idle()
                self._optimizer.accumulate()
                continue
            groups = [batch.groups[index] for index in indices]
            weights = torch.cat([batch.weights[index] for index in indices]).to(device)
            tree = TokenTree(groups)
            log_probs = self._student(tree.row(device), self._algorithm.temperature)
            loss = self._algorithm.loss(log_probs, groups, weights)
            loss.value.backward()  # type: ignore[no-untyped-call]
            self._optimizer.accumulate()
            new = (
                loss.value.item(),
                loss.clip_share,
                loss.kl,
                -log_probs.detach().sum().item(),
                len(log_probs),
                tree.num_tokens,
            )
            sums = Trained(*(value + more for value, more in zip(sums, new, strict=True)))
        return Trained(*self._team.total(sums))

    def save(self, run: Path, update: int) -> Path:
        """Write the checkpoint after `update`; the last one without what only a resumed run needs. Its directory."""
        config = self._config
        state = self.state() if update < self._num_updates else None
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
            "num_prompts_cut": self._policy.num_prompts_cut,
            "torch_rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self._optimizer.restore(state["optimizer"])
        self._cursor.position = state["cursor"]
        self._algorithm.restore([Group(**group) for group in state["left_over"]])
        self._policy.num_prompts_cut = state["num_prompts_cut"]
        torch.set_rng_state(state["torch_rng"])
