"""Config, examples and a student → checkpoints: update after update, from the newest checkpoint to the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from swe_srl.errors import NothingToLearn
from swe_srl.policy.load import last_checkpoint, load_student
from swe_srl.policy.local import LocalPolicy
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.schema import Task
from swe_srl.store import Run
from swe_srl.training import checkpoint
from swe_srl.training.algorithms.base import Algorithm
from swe_srl.training.algorithms.rlvr import Rlvr
from swe_srl.training.algorithms.sft import Sft
from swe_srl.training.algorithms.srl import Srl
from swe_srl.training.attempts import Arena
from swe_srl.training.config import RlvrConfig, SftConfig, TrainConfig
from swe_srl.training.data import Cursor, Example
from swe_srl.training.lora import add_adapter
from swe_srl.training.metrics import METRICS, UpdateMetrics, clear_stall, forget_after, noting_a_stall, spent
from swe_srl.training.optimizer import freeze_below
from swe_srl.training.probe import solvable
from swe_srl.training.sampling import open_sampler
from swe_srl.training.team import ALONE, Team
from swe_srl.training.trackers import tracking
from swe_srl.training.trainer import Trainer

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
    if team.is_lead:
        clear_stall(run.path)  # it may go on now
    data = _worth_training_on(config, data, run, arena, team)
    total = config.num_updates(len(data))
    found = checkpoint.load(team.agree(last_checkpoint(run.path)))
    done = 0 if found is None else found[1].update
    num_tokens = team.agree(spent(run.path, updates=done).total)
    if found is not None and _is_finished(config, total, done, num_tokens):
        return found[0]
    policy = _prepared(config, config.model if found is None or config.lora else str(found[0]))
    sampler = open_sampler(config, policy)
    algorithm = make_algorithm(config, data, sampler, arena, team)
    trainer = Trainer(config, policy, sampler, algorithm, _cursor(config, data), total, team)
    if found is not None:
        assert found[2] is not None, "an unfinished run's checkpoint has the trainer's state"
        trainer.restore(found[2])
    if team.is_lead:
        forget_after(run.path, done)
    trainer.num_tokens = num_tokens
    path, saved = run.path, done
    names = config.trackers if team.is_lead else ()
    with (
        closing(sampler),
        team.appending(run, METRICS, UpdateMetrics) as write,
        tracking(names, run, config.model_dump(mode="json"), done + 1) as trackers,
    ):
        for update in range(done + 1, total + 1):
            if progress is not None:
                progress(int(trainer.place(update)) - 1, total)
            try:
                with noting_a_stall(run.path, update, by_me=team.is_lead):
                    metrics = trainer.update(update)
            except NothingToLearn:
                if update - 1 > saved:
                    trainer.save(run.path, update - 1, is_last=False)
                raise
            write(metrics)
            trackers.log(metrics)
            is_last = _is_finished(config, total, update, trainer.num_tokens)
            if is_last or update % config.save_every == 0:
                path, saved = trainer.save(run.path, update, is_last=is_last), update
            if is_last:
                break
    if progress is not None:
        progress(total, total)
    return path


def _worth_training_on(config: TrainConfig, data: Data, run: Run, arena: Arena | None, team: Team) -> Data:
    """All of `data`; for RLVR with a probe, the tasks that the student solves now and then."""
    settings = config.algorithm
    if not isinstance(settings, RlvrConfig) or not settings.probe:
        return data
    assert arena is not None, "RLVR needs boxes and a grader"
    tasks = [item for item in data if isinstance(item, Task)]
    with noting_a_stall(run.path, update=0, by_me=team.is_lead):
        return solvable(tasks, lambda: _student(config, config.model), config, settings, arena, run, team)


def _is_finished(config: TrainConfig, num_updates: int, update: int, num_tokens: int) -> bool:
    """Whether the run ends with this update: it is the last one, or the budget is spent."""
    return update >= num_updates or (config.budget_tokens is not None and num_tokens >= config.budget_tokens)


def _prepared(config: TrainConfig, model: str) -> LocalPolicy:
    """The student, with what of it learns, and how."""
    policy = _student(config, model)
    if config.lora is not None:
        add_adapter(policy.model, config.lora, config.seed)
    if config.trainable_layers is not None:
        freeze_below(policy.model, config.trainable_layers)
    if config.activation_checkpointing:
        policy.checkpoint_activations()
    return policy


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
    config: TrainConfig, data: Data, sampler: TokenPolicy, arena: Arena | None = None, team: Team = ALONE
) -> Algorithm:
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
        tasks = [item for item in data if isinstance(item, Task)]
        return Rlvr(settings, config, tasks, sampler, arena, reference, team)
    return Srl(settings, config, examples, sampler, reference, team)
