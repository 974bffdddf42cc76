"""Tasks + Policy → Predictions, in one of the modes; stopped at any moment, it goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from swe_srl.agent import OpenBox, open_task_box
from swe_srl.errors import ConfigError
from swe_srl.evaluation.base import Attempt, Bench, Candidate, Mode
from swe_srl.evaluation.modes import EvaluationMode
from swe_srl.grading.predictions import swe_bench_object
from swe_srl.policy.base import Policy
from swe_srl.rewards.choose import FIRST, Choose, chooser
from swe_srl.schema import Prediction, Task, Trajectory
from swe_srl.store import Run, write_json

PREDICTIONS = "predictions.jsonl"
EPISODES = "episodes.jsonl"
CANDIDATES = "candidates.jsonl"
PREDS = "preds.json"
SETTINGS = "predict.json"


def predict(
    tasks: Sequence[Task],
    policy: Policy,
    config: EvaluationMode,
    run: Run,
    *,
    model: str = "",
    attempts: int = 1,
    choose: str = FIRST,
    gold_files: Mapping[str, tuple[str, ...]] | None = None,
    open_box: OpenBox | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """Let the model try every task; the predictions stand in the order of the tasks, those of a task in that of its attempts.

    Writes `predictions.jsonl` (ours), `episodes.jsonl` (every answer), `candidates.jsonl` (patches that an attempt chose
    from) and, at the end, `preds.json` (SWE-bench's, one patch for each task). An attempt whose box broke is recorded as an
    infrastructure failure and made again at the next start, which may also ask for more attempts.

    Args:
        tasks: what to try.
        policy: who tries.
        config: how.
        run: where it is written.
        model: the name in the predictions; the policy's own where empty.
        attempts: how often each task is tried, each time with other seeds.
        choose: which attempt goes to `preds.json`, see rewards/choose.py.
        gold_files: task → files that its gold patch changes, for the mode that shows them.
        open_box: opens a fresh box of a task; Docker boxes by `config.sandbox` where None.
        progress: is told (done, total) in rounds of answers; a finished attempt counts as all that it could have taken.

    Raises:
        UserError: the run was started with other settings, or another process works in it.
        ConfigError: several attempts are asked for where all answers are the same, or there is no such way to choose.
        EndpointError: the policy cannot be reached; what is on disk stays.
    """
    check_attempts(config, attempts, choose)
    model, mode, choice = model or policy.name, config.build(), chooser(choose)
    with run.exclusive():
        own = {"max_parallel", "overlap"}  # may differ from start to start: they change no answer
        run.remember(SETTINGS, {"model": model, **config.model_dump(mode="json", exclude=own)})
        wanted = [Attempt(task, number) for task in tasks for number in range(attempts)]
        found = {_place(item): item for item in run.read(PREDICTIONS, Prediction) if not item.infra_failure}
        pending = [attempt for attempt in wanted if (attempt.task.task_id, attempt.number) not in found]
        rounds = _Rounds(len(wanted), mode, progress)
        rounds.finish(len(wanted) - len(pending))
        open_box = open_box or partial(open_task_box, config=config.sandbox, purpose="predict")
        bench = Bench(policy, model, open_box, gold_files or {}, rounds.take)
        with run.append(PREDICTIONS, Prediction) as predictions, run.append(EPISODES, Trajectory) as episodes:
            for result in mode.run(pending, bench):
                episodes.write(result.trajectory)
                if result.candidates:
                    with run.append(CANDIDATES, Candidate) as candidates:
                        candidates.write(*result.candidates)
                # the prediction is written last: it is what marks the attempt as done
                predictions.write(result.prediction)
                found[_place(result.prediction)] = result.prediction
                rounds.finish(1, result.num_rounds)
        ordered = [found[attempt.task.task_id, attempt.number] for attempt in wanted]
        write_json(run.path / PREDS, _swe_bench(ordered, choice))
    return ordered


def check_attempts(config: EvaluationMode, attempts: int, choose: str = FIRST) -> None:
    """Refuse attempts that would all be the same, and a way to choose among them that does not exist. Raises ConfigError."""
    chooser(choose)
    if attempts > 1 and config.sampling.temperature == 0:
        raise ConfigError(
            f"{attempts} attempts with temperature 0 are the same attempt: set sampling.temperature, as --set sampling.temperature=0.8"
        )


class _Rounds:
    """How far an evaluation is."""

    def __init__(self, num_attempts: int, mode: Mode, progress: Callable[[int, int], None] | None) -> None:
        self._total = num_attempts * mode.max_rounds
        self._max_rounds = mode.max_rounds
        self._progress = progress
        self._done = 0

    def take(self) -> None:
        """An attempt was answered."""
        self._advance(1)

    def finish(self, num_attempts: int, num_rounds: int = 0) -> None:
        """So many attempts are done, for which `num_rounds` rounds were counted."""
        self._advance(num_attempts * self._max_rounds - num_rounds)

    def _advance(self, num_rounds: int) -> None:
        self._done += num_rounds
        if self._progress:
            self._progress(self._done, self._total)


def _place(prediction: Prediction) -> tuple[str, int]:
    return prediction.task_id, prediction.attempt


def _swe_bench(predictions: Sequence[Prediction], choose: Choose) -> dict[str, dict[str, str]]:
    """One patch for each task under SWE-bench's names: that of the chosen attempt, of those that the apparatus did not prevent."""
    of_task: dict[str, list[Prediction]] = {}
    for item in predictions:
        if not item.infra_failure:
            of_task.setdefault(item.task_id, []).append(item)
    return {
        task_id: swe_bench_object(items[choose([item.patch for item in items])]) for task_id, items in of_task.items()
    }
