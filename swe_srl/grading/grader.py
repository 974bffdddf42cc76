"""Tasks with their hidden answers → a Grader, which grades by task id, each prediction in a fresh box of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from swe_srl.benchmarks.grading_spec import load_specs
from swe_srl.benchmarks.load import load_tasks
from swe_srl.errors import FormatError, UnknownTask
from swe_srl.grading.grade import Graded, grade, grade_unpatched, verdict_without_tests
from swe_srl.grading.integrity import VERSION, Referee
from swe_srl.grading.rules import import_swebench
from swe_srl.runtime.base import Sandbox, SandboxConfig
from swe_srl.runtime.open import BoxRequest, backend_of, open_box
from swe_srl.runtime.pool import WarmPool
from swe_srl.schema import Prediction, Task

Rules = Literal["strict", "swebench"]

OUTPUT_BYTES = 50_000_000
"""Of one log. A verdict needs all of it: the results of the tests stand at its end."""


_OF_A_PROCESS = ("_pool", "_referees", "_lock")


def grader_version(rules: Rules) -> str:
    """`strict-1 swebench-5.0.2`: our checks, and the parsers and rules below them."""
    below = f"swebench-{metadata.version('swebench')}"
    return f"strict-{VERSION} {below}" if rules == "strict" else below


def grading_sandbox(config: SandboxConfig) -> SandboxConfig:
    """`config` for a grading box: the whole log is kept, and the image's own environment stands as swebench would see it."""
    limits = config.limits.model_copy(update={"output_bytes": max(OUTPUT_BYTES, config.limits.output_bytes)})
    return config.model_copy(update={"limits": limits, "environment": {}})


class Grader:
    """Grades predictions by task id; safe to share between threads, and can be pickled for other machines.

    Holds the answers, and shows none of them.
    """

    def __init__(
        self,
        source: str | Path,
        sandbox: SandboxConfig | None = None,
        timeout_s: float = 1800.0,
        *,
        ids: Sequence[str] = (),
        rules: Rules = "strict",
        stop_early: bool = False,
    ) -> None:
        """Load the tasks and answers of a task repo or a file of rows. Raises UserError when they cannot be read.

        Args:
            source: a task repo, or rows (JSONL, JSON, parquet).
            sandbox: how boxes are made; limits on output and the environment are set as grading needs them.
            timeout_s: of one run of the tests.
            ids: only these tasks; all where empty.
            rules: `strict`: two witnesses and tests set back, see integrity.py; `swebench`: as swebench 5 judges, to the letter.
            stop_early: with `strict`, end a run of pytest at the first expected test that fails: for rewards, where only
                the verdict counts, never to measure.
        """
        self._specs = load_specs(source)
        self.tasks: dict[str, Task] = {
            task.task_id: task for task in load_tasks(source, ids) if task.task_id in self._specs
        }
        if not self.tasks:
            raise FormatError(
                f"{source}: no task in it can be graded: grading needs rows with eval_script, log_parser, FAIL_TO_PASS and PASS_TO_PASS"
            )
        self._sandbox = grading_sandbox(sandbox or SandboxConfig())
        self._timeout_s = timeout_s
        self._source = source
        self._rules = rules
        self._stop_early = stop_early
        self._begin()

    def _begin(self) -> None:
        """What belongs to one process, and is made in each."""
        # Here, and not in the threads that grade: swebench imports docker, and docker's modules each other in a circle, so that
        # two threads which are the first to import them can lock each other out.
        import_swebench()
        backend_of(self._sandbox.type)
        self._pool: WarmPool | None = None
        self._referees: dict[str, Referee] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What a Grader on another machine is made of: tasks, answers and settings, and nothing that is open."""
        return {name: value for name, value in vars(self).items() if name not in _OF_A_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def version(self) -> str:
        """What is written into each verdict."""
        return grader_version(self._rules)

    def grade(self, prediction: Prediction) -> Graded:
        """Grade one prediction in a fresh box.

        Raises UnknownTask for an id that is not among the tasks, and ApparatusError when image or box fail.
        """
        task = self._task(prediction.task_id)
        spec = self._specs[task.task_id]
        if not prediction.patch.strip():  # no box for what is not run
            return Graded(verdict_without_tests(prediction, spec, "empty_patch"))
        if self._rules == "swebench":
            with self._open(task, "grade") as box:
                return grade(prediction, spec, box, timeout_s=self._timeout_s, version=task.version)
        return self._referee(task).grade(prediction)

    def grade_unpatched(self, task_id: str) -> Graded:
        """Run the trusted tests on a task's untouched tree. Raises as `grade` does."""
        task = self._task(task_id)
        with self._open(task, "check") as box:
            return grade_unpatched(self._specs[task_id], box, timeout_s=self._timeout_s, version=task.version)

    @contextmanager
    def expecting(self, predictions: Sequence[Prediction]) -> Iterator[None]:
        """Open boxes ahead for these predictions, which are to be graded in this order, while those before them are graded."""
        wanted = [self._request(self._task(item.task_id), "grade") for item in predictions if item.patch.strip()]
        try:
            with closing(WarmPool(lambda request: open_box(self._sandbox, request), wanted)) as self._pool:
                yield
        finally:
            self._pool = None

    def _referee(self, task: Task) -> Referee:
        """One for all predictions of a task: what it finds out about the task is found out once."""
        with self._lock:
            if task.task_id not in self._referees:
                spec = self._specs[task.task_id]
                self._referees[task.task_id] = Referee(
                    task,
                    spec,
                    lambda: self._open(task, "grade"),
                    timeout_s=self._timeout_s,
                    stop_early=self._stop_early,
                )
            return self._referees[task.task_id]

    def _open(self, task: Task, purpose: str) -> Sandbox:
        request = self._request(task, purpose)
        return self._pool.take(request) if self._pool else open_box(self._sandbox, request)

    def _request(self, task: Task, purpose: str) -> BoxRequest:
        # what git knows of the solution could be fetched by the patched code when it runs
        strict = self._rules == "strict"
        return BoxRequest(task.image, task.workdir, task.image_context, strict, name=f"{purpose}-{task.task_id}")

    def gold(self, task_id: str) -> Prediction:
        """The gold patch of a task, as a prediction of the model `gold`."""
        return Prediction(
            task_id=task_id, model="gold", patch=self._specs[self._task(task_id).task_id].gold_patch, exit_status=""
        )

    def eval_script(self, task_id: str) -> str:
        """The script that grading runs, as it is kept beside a verdict."""
        from swe_srl.grading.rules import eval_script

        return eval_script(self._specs[self._task(task_id).task_id])

    def infra_failure(self, prediction: Prediction, reason: str) -> Graded:
        """What is recorded when the apparatus failed: not a verdict on the patch, graded again at the next start."""
        spec = self._specs[self._task(prediction.task_id).task_id]
        return Graded(verdict_without_tests(prediction, spec, "infra_failure", note=reason))

    def _task(self, task_id: str) -> Task:
        if task_id not in self.tasks:
            raise UnknownTask(
                f"no task {task_id!r} with an answer in {self._source}: are the --tasks those of the predictions?"
            )
        return self.tasks[task_id]
