"""Plan → results, cell by cell, each training and each measurement by its own verb in a process of its own."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from swe_srl.errors import ApparatusError, UserError
from swe_srl.policy.load import last_checkpoint
from swe_srl.schema import Record
from swe_srl.settings import merge
from swe_srl.store import Run, read_json, write_json
from swe_srl.study.estimate import Estimate
from swe_srl.study.plan import Cell, Model, Plan, flat
from swe_srl.training.chain import limit
from swe_srl.training.metrics import STALLED, read_metrics, read_stalled, spent

MODEL = "model.json"
MEASURED = "measured.json"
CELL = "cell.json"
INTERRUPTED = 130
GRACE_S = 10.0
"""For a verb that is told to end."""

RunVerb = Callable[[Sequence[str]], int]
"""The words behind `swe-srl` → the exit code."""


class StageResult(Record):
    """What became of one stage."""

    name: str
    folder: str
    """Its run directory, under the study's."""
    outcome: Literal["trained", "nothing to learn", "no budget left"]
    """`nothing to learn`: all that the student tried was worth the same, and the cell ends with what it was then."""
    num_updates: int
    trained_tokens: int
    sampled_tokens: int
    note: str = ""
    seconds: float = 0.0
    """Of the call that finished it."""


class CellResult(Record):
    """What became of one cell."""

    arm: str
    seed: int
    stages: tuple[StageResult, ...]
    measured: str
    """The run directory of its measurements, under the study's; cells that end with the same model share it."""


class Missing(Record):
    """A cell that the apparatus prevented."""

    arm: str
    seed: int
    reason: str


class _Broken(ApparatusError):
    """A verb ended as none should."""


class Study:
    """A plan, carried out in one directory."""

    def __init__(self, plan: Plan, out: Path, run_verb: RunVerb, say: Callable[[str], None]) -> None:
        """`run_verb` carries out one command line of swe-srl; `say` is told what is going on."""
        self._plan = plan
        self._out = out
        self._run_verb = run_verb
        self._say = say
        self._broken: dict[str, str] = {}
        self._estimate = Estimate()

    def run(self) -> tuple[list[CellResult], list[Missing]]:
        """Finish every cell; the results, and the cells that the apparatus prevented.

        Raises UserError where a verb finds its input wrong: that would be so in every cell.
        """
        results: list[CellResult] = []
        missing: list[Missing] = []
        begun = time.monotonic()
        self._look_up_durations()
        for number, cell in enumerate(self._plan.cells, start=1):
            left = self._estimate.left(self._jobs())
            minutes = (time.monotonic() - begun) / 60
            self._say(
                f"\n[cell {number}/{len(self._plan.cells)}, {minutes:.1f} min{left}] {cell.arm}, seed {cell.seed}"
            )
            try:
                results.append(self._cell(cell))
            except _Broken as error:
                self._say(f"{cell.arm}, seed {cell.seed} is left out: {error}")
                missing.append(Missing(arm=cell.arm, seed=cell.seed, reason=str(error)))
            else:
                write_json(self._out / cell.folder / CELL, results[-1].model_dump(mode="json"))
        return results, missing

    def _cell(self, cell: Cell) -> CellResult:
        """Train what is not trained, measure what is not measured."""
        untrained, *trained = cell.model.lineage()
        results: list[StageResult] = []
        last = untrained
        for model in trained:
            already = sum(result.trained_tokens + result.sampled_tokens for result in results)
            results.append(self._train(model, last, already))
            if last_checkpoint(self._out / model.folder):
                last = model
            if results[-1].outcome != "trained":
                break
        return CellResult(arm=cell.arm, seed=cell.seed, stages=tuple(results), measured=self._measure(last, cell.seed))

    def _train(self, model: Model, start: Model, already: int) -> StageResult:
        """One stage, unless it is finished."""
        assert model.stage is not None
        folder, stage = self._out / model.folder, model.stage
        if (folder / MODEL).is_file():
            return StageResult.model_validate(read_json(folder / MODEL))
        tokens = limit(self._plan.config.budget_tokens, stage.share, stage.settings.budget_tokens, already)
        begun = time.monotonic()
        if tokens != 0:
            (folder / STALLED).unlink(missing_ok=True)
            with self._once(model.folder):
                self._verb(self._training(model, start, tokens), may_stall=folder)
        used, stalled = spent(folder), read_stalled(folder)
        result = StageResult(
            name=stage.name,
            folder=model.folder,
            outcome="no budget left" if tokens == 0 else "nothing to learn" if stalled else "trained",
            num_updates=len(read_metrics(folder)),
            trained_tokens=used.trained,
            sampled_tokens=used.sampled,
            note=stalled.reason if stalled else "",
            seconds=time.monotonic() - begun,
        )
        write_json(folder / MODEL, result.model_dump(mode="json"))
        self._estimate.took(stage.name, result.seconds)
        return result

    def _training(self, model: Model, start: Model, tokens: int | None) -> list[str]:
        """The command line of a stage."""
        assert model.stage is not None
        config, stage = self._plan.config, model.stage
        words = ["train", stage.preset, *(f"--set={one}" for one in stage.overrides)]
        if tokens is not None:
            words.append(f"--set=budget_tokens={tokens}")
        if not any(one.startswith("keep_last=") for one in stage.overrides):
            words.append("--set=keep_last=1")  # a study has many models, and goes on from the last checkpoint of each
        words += [word for path in config.steps for word in ("--steps", path)]
        return [*words, "--tasks", config.tasks, "--model", self._spec(start), "--out", str(self._out / model.folder)]

    def _spec(self, model: Model) -> str:
        """What --model and --policy take."""
        return self._plan.config.student if model.stage is None else str(self._out / model.folder)

    def _measure(self, model: Model, seed: int) -> str:
        """Measure a model, unless that is done; the folder, under the study's."""
        folder = self._out / model.folder / "eval"
        if not (folder / MEASURED).is_file():
            begun = time.monotonic()
            with self._once(f"{model.folder}/eval"):
                for words in self._measurements(model, seed, folder):
                    self._verb(words)
            seconds = time.monotonic() - begun
            write_json(folder / MEASURED, {"model": model.name, "seed": seed, "seconds": seconds})
            self._estimate.took("measuring", seconds)
        return str(folder.relative_to(self._out))

    def _measurements(self, model: Model, seed: int, folder: Path) -> Iterator[list[str]]:
        """The command lines of a measurement."""
        config = self._plan.config
        common = ["--policy", self._spec(model), "--name", model.name, "--out", str(folder)]
        context = (model.stage.settings if model.stage else config.agreement).context.model_dump(mode="json")
        always = {"context": context, "sampling": {"seed": seed}}
        told = merge(config.agreement.model_dump(mode="json", exclude_unset=True), always)
        heldout = ["--tasks", config.heldout_tasks]
        yield ["agree", config.heldout_steps, *heldout, *common, "--reward", config.reward, *_options(told)]
        if config.solve:
            solve = config.solve
            tasks = heldout if solve.of == "held-out" else ["--tasks", config.tasks]
            preset = [solve.preset] if solve.preset else []
            limits = ["--max-tasks", str(solve.tasks), "--attempts", str(solve.attempts)]
            yield ["predict", *preset, *limits, *tasks, *common, *_options(merge(solve.settings, always))]
            graded = [*tasks, "--workers", str(solve.workers), "--out", str(folder)]
            yield ["grade", str(folder / "predictions.jsonl"), *graded]

    def _verb(self, words: Sequence[str], *, may_stall: Path | None = None) -> None:
        """Carry out a command line. `may_stall` is a training run that may find nothing to learn, which is a result."""
        self._say(f"$ swe-srl {shlex.join(words)}")
        code = self._run_verb(words)
        if code == 0 or (code == UserError.exit_code and may_stall and (may_stall / STALLED).is_file()):
            return
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code == UserError.exit_code:
            raise UserError(
                f"`swe-srl {words[0]}` cannot be done as it is told, see above: mend that and call the study again"
            )
        raise _Broken(f"`swe-srl {words[0]}` ended with exit code {code}, see above")

    @contextmanager
    def _once(self, what: str) -> Iterator[None]:
        """What broke in this call is not tried again for the next cell that needs it."""
        if what in self._broken:
            raise _Broken(self._broken[what])
        try:
            yield
        except _Broken as error:
            self._broken[what] = str(error)
            raise

    def _jobs(self) -> list[str]:
        """The kinds of what is still to be done."""
        kinds = [
            model.stage.name
            for model in self._plan.models()
            if model.stage
            and not (self._out / model.folder / MODEL).is_file()
            and not self._ended_early(model.lineage()[:-1])
        ]
        return kinds + [
            "measuring"
            for model in self._plan.measured()
            if not (self._out / model.folder / "eval" / MEASURED).is_file() and not self._ended_early(model.lineage())
        ]

    def _ended_early(self, stages: Sequence[Model]) -> bool:
        """Whether one of them found nothing to learn or no budget, so that none comes after it."""
        results = [self._out / model.folder / MODEL for model in stages]
        return any(read_json(path)["outcome"] != "trained" for path in results if path.is_file())

    def _look_up_durations(self) -> None:
        """How long what earlier calls did took."""
        for model in self._plan.models():
            folder = self._out / model.folder
            if model.stage and (folder / MODEL).is_file():
                self._estimate.took(model.stage.name, read_json(folder / MODEL)["seconds"])
            if (folder / "eval" / MEASURED).is_file():
                self._estimate.took("measuring", read_json(folder / "eval" / MEASURED)["seconds"])


def _options(table: dict[str, Any]) -> list[str]:
    """Settings as a verb takes them."""
    return [f"--set={one}" for one in flat(table)]


def in_a_process(words: Sequence[str]) -> int:
    """Run a verb as a user would, so that all of its memory is given back; the exit code.

    A study that is told to end takes the verb with it, which would else go on and keep the next call out of its directory.
    """
    signal.signal(signal.SIGTERM, _end)
    process = subprocess.Popen([sys.executable, "-m", "swe_srl.cli", *words])
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()  # and not killed: it may have one of its own to take with it
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        process.kill()
        raise


def _end(*_: object) -> None:
    raise KeyboardInterrupt


def remember(plan: Plan, run: Run, digests: dict[str, str]) -> None:
    """Refuse to go on with other data or other measurements; arms, stages, seeds and budget may change. Raises UserError."""
    told = plan.config.model_dump(mode="json", include={"student", "agreement", "reward", "solve"})
    run.remember("settings.json", {**told, **digests})
