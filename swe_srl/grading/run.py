"""Predictions + Grader → verdicts.jsonl and SWE-bench's own files; stopped at any moment, it goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from swe_srl.fanout import THREADS, Executor, fan_out, grouped
from swe_srl.grading.grade import Graded
from swe_srl.grading.papers import write_metadata, write_papers, write_run_reports
from swe_srl.grading.predictions import check_known
from swe_srl.schema import Prediction, Task, Verdict
from swe_srl.store import Run, write_json

VERDICTS = "verdicts.jsonl"
SETTINGS = "grade.json"


class Grades(Protocol):
    """What `grade_all` asks of a Grader."""

    tasks: dict[str, Task]

    @property
    def version(self) -> str:
        """Of the rules; a verdict by others is made anew."""

    def grade(self, prediction: Prediction) -> Graded:
        """Grade one prediction."""

    def expecting(self, predictions: Sequence[Prediction]) -> AbstractContextManager[None]:
        """These are to be graded next, in this order: boxes may be opened ahead."""

    def eval_script(self, task_id: str) -> str:
        """The script that grading runs."""

    def infra_failure(self, prediction: Prediction, reason: str) -> Graded:
        """The record of a failure of the apparatus."""


Place = tuple[str, str, int]
"""Task, model, attempt: each has one verdict in force."""


def key_of(verdict: Verdict) -> tuple[str, str, str]:
    """A verdict belongs to one patch: a changed patch is graded again, and one that two attempts came to is graded once."""
    return verdict.task_id, verdict.model, verdict.patch_digest


def place_of(item: Verdict | Prediction) -> Place:
    """Where a verdict is in force."""
    return item.task_id, item.model, item.attempt


def current_verdicts(run: Run) -> dict[Place, Verdict]:
    """The verdict in force for each (task, model, attempt): the last one written."""
    return {place_of(verdict): verdict for verdict in run.read(VERDICTS, Verdict)}


def grade_all(
    predictions: Sequence[Prediction],
    grader: Grades,
    run: Run,
    *,
    source: str | Path,
    workers: int = 2,
    executor: Executor = THREADS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Verdict]:
    """Grade all predictions, each in a fresh box; the verdicts stand in the order of the predictions.

    What a run before this one has decided is not graded again, except failures of the apparatus. One such failure is
    recorded and the others go on; a missing engine ends the run. `source` is where the tasks came from, for the papers.
    `executor` is where boxes are, `workers` of them at once in each place; all that is written is written here.

    Raises UnknownTask before anything is run, UserError when another process works in the same directory.
    """
    check_known(predictions, grader.tasks, origin=source)
    with run.exclusive():
        write_json(
            run.path / SETTINGS,
            {
                "tasks": str(source),
                "task_ids": sorted(grader.tasks),
                "submitted": [list(place_of(prediction)) for prediction in predictions],
            },
        )
        write_metadata(run, source)
        before = {
            key_of(verdict): verdict
            for verdict in run.read(VERDICTS, Verdict)
            if verdict.status != "infra_failure" and verdict.grader == grader.version
        }
        in_force = current_verdicts(run)
        done = 0
        with run.append(VERDICTS, Verdict) as verdicts:
            for graded, prediction in _graded(predictions, grader, before, workers, executor):
                verdict = graded.verdict.model_copy(update={"grader": grader.version, "attempt": prediction.attempt})
                place = place_of(verdict)
                if in_force.get(place) != verdict:
                    # an old patch that came back has its old verdict written again: the last line is the one in force
                    if key_of(verdict) not in before:
                        write_papers(run, prediction, graded, grader.eval_script(prediction.task_id))
                    verdicts.write(verdict)
                    in_force[place] = verdict
                done += 1
                if progress:
                    progress(done, len(predictions))
        found = [in_force[place_of(prediction)] for prediction in predictions]
        write_run_reports(run, found, grader.tasks)
        return found


def _graded(
    predictions: Sequence[Prediction],
    grader: Grades,
    before: Mapping[tuple[str, str, str], Verdict],
    workers: int,
    executor: Executor,
) -> Iterator[tuple[Graded, Prediction]]:
    """Each prediction with its verdict, old or new, as it is ready. Attempts that came to the same patch share its verdict."""
    pending: dict[tuple[str, str, str], list[Prediction]] = {}
    for prediction in predictions:
        key = (prediction.task_id, prediction.model, prediction.patch_digest)
        old = before.get(key)
        if prediction.infra_failure:
            yield grader.infra_failure(prediction, f"while predicting: {prediction.infra_failure}"), prediction
        elif old:
            yield Graded(old), prediction
        else:
            pending.setdefault(key, []).append(prediction)

    def image_of(prediction: Prediction) -> str:
        return grader.tasks[prediction.task_id].image

    first = grouped((alike[0] for alike in pending.values()), image_of)
    with grader.expecting(first if executor.is_here else []):
        for outcome in fan_out(grader.grade, first, workers=workers, executor=executor, near=image_of):
            one = outcome.item
            for prediction in pending[one.task_id, one.model, one.patch_digest]:
                yield outcome.value or grader.infra_failure(prediction, str(outcome.failure)), prediction
