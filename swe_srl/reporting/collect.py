"""Run directories → what each model did: its predictions, its verdicts, its agreement with a teacher's steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from swe_srl.errors import FormatError, UserError
from swe_srl.schema import STEP_AGREEMENT, Prediction, StepAgreement, Verdict
from swe_srl.store import read_json, read_records

FILES = ("predictions.jsonl", "verdicts.jsonl", STEP_AGREEMENT)
"""What a run directory may hold; at least one of them must be there."""


Numbered = TypeVar("Numbered", Prediction, Verdict)


class Collected(NamedTuple):
    """All that is known of one model in one comparison."""

    label: str
    model: str
    predictions: tuple[Prediction, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    agreement: tuple[StepAgreement, ...] = ()
    num_tasks: int | None = None
    """Tasks that the predictions were graded against; None where nothing was graded."""
    folders: tuple[Path, ...] = ()
    """Where all of it was read."""

    @property
    def num_attempts(self) -> int:
        """Numbers of attempts that are taken: one more than the highest."""
        numbers = [item.attempt for item in self.predictions] + [item.attempt for item in self.verdicts]
        return 1 + max(numbers, default=-1)

    @property
    def kinds(self) -> frozenset[str]:
        """Which of the three are there."""
        parts = {"predictions": self.predictions, "verdicts": self.verdicts, "agreement": self.agreement}
        return frozenset(kind for kind, records in parts.items() if records)


def collect(paths: Sequence[str | Path], *, pool: bool = False) -> list[Collected]:
    """One entry for each model, in the order of the directories.

    Directories of one model (its predictions here, its verdicts there) become one entry; a second directory that repeats
    what an entry already has (another seed) becomes an entry of its own, labelled with the directory's name. With `pool`,
    such runs of one model in one mode are one entry, the later ones' attempts numbered after those of the earlier.
    Raises UserError naming a directory that holds no run.
    """
    entries: list[Collected] = []
    for path in map(Path, paths):
        for found in _read(path):
            for number, entry in enumerate(entries):
                if entry.model == found.model and not entry.kinds & found.kinds:
                    entries[number] = _merge(entry, found)
                    break
            else:
                taken = {entry.label for entry in entries}
                label = found.label if found.label not in taken else f"{found.label} ({path.name})"
                if label in taken:
                    raise UserError(
                        f"{path} repeats {found.label!r}, which another run directory of the same name holds: give each run once"
                    )
                entries.append(found._replace(label=label))
    return _pooled(entries) if pool else entries


def _pooled(entries: Sequence[Collected]) -> list[Collected]:
    """One entry for each model in each mode, all its runs' attempts in it."""
    pooled: dict[tuple[str, frozenset[str]], Collected] = {}
    for entry in entries:
        key = (entry.model, frozenset(item.mode for item in entry.predictions))
        before = pooled.get(key)
        if before is None:
            pooled[key] = entry
            continue
        first = before.num_attempts
        pooled[key] = before._replace(
            predictions=before.predictions + tuple(_later(item, first) for item in entry.predictions),
            verdicts=before.verdicts + tuple(_later(item, first) for item in entry.verdicts),
            agreement=before.agreement + entry.agreement,
            num_tasks=max(before.num_tasks or 0, entry.num_tasks or 0) or None,
            folders=before.folders + entry.folders,
        )
    return list(pooled.values())


def _later(item: Numbered, first: int) -> Numbered:
    return item.model_copy(update={"attempt": item.attempt + first})


def _merge(first: Collected, second: Collected) -> Collected:
    return first._replace(
        predictions=first.predictions or second.predictions,
        verdicts=first.verdicts or second.verdicts,
        agreement=first.agreement or second.agreement,
        num_tasks=second.num_tasks if first.num_tasks is None else first.num_tasks,
        folders=(*first.folders, *second.folders),
    )


def _read(path: Path) -> list[Collected]:
    """What one directory holds, by model."""
    if not any((path / name).is_file() for name in FILES):
        raise UserError(
            f"{path} holds no run: none of {', '.join(FILES)} is in it; give the --out of predict, grade or agree"
        )
    predictions = _predictions(path / FILES[0])
    verdicts = list(read_records(path / FILES[1], Verdict)) if (path / FILES[1]).is_file() else []
    agreement = list(read_records(path / FILES[2], StepAgreement)) if (path / FILES[2]).is_file() else []
    submitted, num_tasks = _submitted(path / "grade.json")
    # the last verdict on an attempt is the one in force; one on a prediction that is no longer submitted is not
    in_force = {(item.task_id, item.model, item.attempt): item for item in verdicts}
    if submitted is not None:
        in_force = {key: in_force[key] for key in submitted if key in in_force}
    records: list[Prediction | Verdict | StepAgreement] = [*predictions, *in_force.values(), *agreement]
    return [
        Collected(
            label=model,
            model=model,
            predictions=tuple(
                {(item.task_id, item.attempt): item for item in predictions if item.model == model}.values()
            ),
            verdicts=tuple(item for item in in_force.values() if item.model == model),
            agreement=tuple({item.step_id: item for item in agreement if item.model == model}.values()),
            num_tasks=num_tasks,
            folders=(path,),
        )
        for model in dict.fromkeys(item.model for item in records)
    ]


def _predictions(path: Path) -> list[Prediction]:
    """Our own predictions; one that another tool made says nothing of turns and tokens, and its verdicts count it."""
    if not path.is_file():
        return []
    try:
        return list(read_records(path, Prediction))
    except FormatError:
        if '"instance_id"' in path.read_text(encoding="utf-8", errors="replace")[:100_000]:
            return []
        raise


def _submitted(path: Path) -> tuple[list[tuple[str, str, int]] | None, int | None]:
    """(task, model, attempt) of all that was submitted to grading, and the number of tasks; None where nothing was graded."""
    if not path.is_file():
        return None, None
    settings: Any = read_json(path)
    try:
        # files of versions without attempts hold pairs
        places = [(item[0], item[1], item[2] if len(item) > 2 else 0) for item in settings["submitted"]]
        return places, len(settings["task_ids"])
    except (KeyError, TypeError, IndexError) as error:
        raise FormatError(
            f"{path}: not the grade.json that `swe-srl grade` writes: run it again with the same --out"
        ) from error
