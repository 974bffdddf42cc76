"""A training run's state ↔ disk: a plain Hugging Face directory, with the trainer's state beside the weights.

`RUN/checkpoints/update-000050/` holds what `from_pretrained` reads, `checkpoint.json`, and `trainer.pt` (left out of the
last checkpoint of a finished run); of a student with an adapter the two merged, and `adapter/`. A directory is written under another name and renamed: it is whole or not there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swe_srl.errors import FormatError, StorageError
from swe_srl.policy.load import CHECKPOINTS
from swe_srl.policy.local import LocalPolicy
from swe_srl.schema import Checkpoint
from swe_srl.store import read_json, write_json
from swe_srl.training.config import TrainConfig
from swe_srl.training.lora import ADAPTER, taken_apart, write_adapter

TRAINER_STATE = "trainer.pt"


def place(run: Path, update: int) -> Path:
    """The directory of one checkpoint."""
    return run / CHECKPOINTS / f"update-{update:06d}"


def save(
    run: Path,
    write_student: Callable[[Path], None],
    checkpoint: Checkpoint,
    trainer: dict[str, Any] | None,
    *,
    keep_last: int,
) -> Path:
    """Write one checkpoint, then remove all but the newest `keep_last`. Raises StorageError; older ones are never harmed."""
    folder = run / CHECKPOINTS
    target = place(run, checkpoint.update)
    scratch = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        for stale in folder.glob(".update-*.tmp"):
            shutil.rmtree(stale)
        scratch.mkdir(parents=True)
        write_student(scratch)
        if trainer is not None:
            torch.save(trainer, scratch / TRAINER_STATE)
        write_json(scratch / "checkpoint.json", checkpoint.model_dump(mode="json"))
        _sync(scratch)
        if target.exists():
            shutil.rmtree(target)
        scratch.replace(target)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        shutil.rmtree(scratch, ignore_errors=True)
        raise StorageError(
            f"cannot write {target}: {error}: free some space and run again; the checkpoint before it is whole"
        ) from error
    for old in sorted(folder.glob("update-*"))[:-keep_last]:
        shutil.rmtree(old)
    return target


def write_student(folder: Path, policy: LocalPolicy, weights: dict[str, Tensor] | None, config: TrainConfig) -> None:
    """What `from_pretrained` reads, and of an adapter what peft reads. Without `weights` the policy's own are written."""
    if config.lora is None or weights is None:
        policy.save(folder, weights)
        return
    parts = taken_apart(weights, config.lora)
    policy.save(folder, parts.student)
    write_adapter(folder / ADAPTER, parts.adapter, config.lora, config.model)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def load(path: Path | None) -> tuple[Path, Checkpoint, dict[str, Any] | None] | None:
    """A checkpoint, e.g. a run's `last_checkpoint`: its directory, its record, and the trainer's state; None when there is none yet."""
    if path is None:
        return None
    checkpoint = Checkpoint.model_validate(read_json(path / "checkpoint.json"))
    if not (path / TRAINER_STATE).is_file():
        return path, checkpoint, None
    try:
        # Read page by page as it is taken up: with 7B it is 90 GB, and each process of several wants its part only.
        trainer = torch.load(path / TRAINER_STATE, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError) as error:
        raise FormatError(
            f"{path / TRAINER_STATE} cannot be read ({error}): remove {path} to go on from the checkpoint before it"
        ) from error
    return path, checkpoint, trainer
