"""Paths → Sources: run directories by the verb that wrote them, each known by its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from swe_srl.errors import UserError
from swe_srl.reporting.collect import FILES

METRICS = "metrics.jsonl"
REPLAYED = "replayed.jsonl"
CALLS = "calls.jsonl"


class Sources(NamedTuple):
    """What a report is made of; the directories of each kind stand in the order in which they were given."""

    evaluations: tuple[Path, ...] = ()
    """`predict`, `grade` and `agree`."""
    training: tuple[Path, ...] = ()
    replays: tuple[Path, ...] = ()
    teaching: tuple[Path, ...] = ()


def recognise(paths: Sequence[str | Path]) -> Sources:
    """Sort run directories by kind; one that several verbs wrote to is of each. Raises UserError naming one that holds no run."""
    found: dict[str, list[Path]] = {"evaluations": [], "training": [], "replays": [], "teaching": []}
    for path in map(Path, paths):
        kinds = [
            kind
            for kind, names in (
                ("evaluations", FILES),
                ("training", (METRICS,)),
                ("replays", (REPLAYED,)),
                ("teaching", (CALLS,)),
            )
            if any((path / name).is_file() for name in names)
        ]
        if not kinds:
            raise UserError(
                f"{path} holds no run: none of {', '.join((*FILES, METRICS, REPLAYED, CALLS))} is in it; "
                "give the --out of predict, grade, agree, train, replay or teach"
            )
        for kind in kinds:
            found[kind].append(path)
    return Sources(**{kind: tuple(items) for kind, items in found.items()})


def labels_of(paths: Sequence[Path]) -> list[str]:
    """A short name for each directory: its last part, or as many parts as tell it from the others."""
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while depth < max(map(len, parts), default=1) and len({item[-depth:] for item in parts}) < len(parts):
        depth += 1
    return ["/".join(item[-depth:]) for item in parts]
