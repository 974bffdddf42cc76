"""The files of a study → digests, so that one study is not made of two sets of data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from swe_srl.benchmarks.load import load_tasks
from swe_srl.study.config import StudyConfig


def digests(config: StudyConfig) -> dict[str, str]:
    """What was trained on and what was measured with, wherever it lies."""
    return {
        "trained_on": _digest(config.steps, config.tasks),
        "measured_with": _digest([config.heldout_steps], config.heldout_tasks),
    }


def _digest(steps: Sequence[str], tasks: str) -> str:
    whole = hashlib.sha256()
    for path in steps:
        with Path(path).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    for task in load_tasks(tasks):
        whole.update(json.dumps(task.model_dump(mode="json", exclude={"image_context"}), sort_keys=True).encode())
    return whole.hexdigest()[:16]
