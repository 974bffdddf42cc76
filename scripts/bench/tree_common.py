"""What the processes of tree.py share."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

NUM_STEPS = 20
GROUP_SIZE = 8
NEW_TOKENS = 60


class Work(NamedTuple):
    """What one update is made from."""

    model: str
    """A directory."""
    dtype: Literal["bf16", "fp32"]
    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    """What the answer to each prompt is compared with."""
    trl_rows: int
    """Answers that TRL trains on in one pass."""


class Measured(NamedTuple):
    """One update."""

    seconds: float
    sampling_s: float
    num_tokens: int
    """Through the model, sampling and training."""


class Counter:
    """Counts the tokens that go through a model."""

    def __init__(self, model: object) -> None:
        self.total = 0
        model.get_input_embeddings().register_forward_pre_hook(self._count)  # type: ignore[attr-defined]

    def _count(self, _module: object, inputs: tuple) -> None:  # type: ignore[type-arg]
        self.total += inputs[0].numel()


def serve(run: Callable[[Work], Iterator[Measured]], work: str) -> None:
    """Make one update for each line of stdin, and print it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    updates = run(Work(**json.loads(Path(work).read_text())))
    for _ in sys.stdin:
        print(json.dumps(next(updates)._asdict()), file=answers, flush=True)
