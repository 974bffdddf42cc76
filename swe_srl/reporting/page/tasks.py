"""Material → for each task a line of the list, and all that the viewer shows of it, as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_srl.dialogue import format_action, parse, shorten
from swe_srl.grading.papers import model_folder
from swe_srl.replay.replay import Replayed
from swe_srl.reporting.page.material import Acts, Material, Taught
from swe_srl.reporting.teachers import ReplayRun
from swe_srl.schema import Prediction, Rollout, Step, StepAgreement, Turn, Verdict

Value = dict[str, Any]

MAX_CHARS = 6000
"""Of one thought, output or patch on the page; the middle of a longer one is left out. An action stays whole: it is compared."""
MAX_LOG_CHARS = 4000
"""Of the end of a test log."""


def task_line(task_id: str, material: Material, tracks: Sequence[Value]) -> Value:
    """What the list of tasks shows, searches and filters."""
    task = material.tasks.get(task_id)
    statement = task.problem_statement.strip() if task else ""
    teachers = [track for track in tracks if track["kind"] == "teacher"]
    return {
        "id": task_id,
        "project": material.project(task_id),
        "title": statement.partition("\n")[0].strip("# ")[:160],
        "steps": sum(len(track["turns"]) for track in teachers),
        "replay": _worst(teachers),
        "runs": [_of_run(act, task_id) for act in material.acts],
    }


def task_detail(task_id: str, material: Material, tracks: Sequence[Value]) -> Value:
    """Everything on one task."""
    task = material.tasks.get(task_id)
    return {
        "statement": shorten(task.problem_statement.strip(), MAX_CHARS) if task else "",
        "outcomes": [_outcomes(act, task_id) for act in material.acts],
        "tracks": list(tracks),
    }


def tracks_of(task_id: str, material: Material) -> list[Value]:
    """The teacher's trajectories, each step with the students' answers to it; then the students' own episodes."""
    answers: dict[str, list[tuple[int, StepAgreement]]] = {}
    for number, act in enumerate(material.acts):
        for row in act.agreement.get(task_id, ()):
            answers.setdefault(row.step_id, []).append((number, row))
    tracks: list[Value] = []
    shown: set[str] = set()
    for replay, record in material.replayed.get(task_id, ()):
        if record.trajectory_id not in shown:
            shown.add(record.trajectory_id)
            tracks.append(_replayed(replay, record, answers))
    for taught in material.taught.get(task_id, ()):
        if taught.trajectory.trajectory_id not in shown:
            shown.add(taught.trajectory.trajectory_id)
            tracks.append(_taught(taught))
    tracks += _unseen(answers)
    for number, act in enumerate(material.acts):
        episodes = act.episodes.get(task_id, [])
        for attempt, episode in enumerate(episodes, start=1):
            name = f"{act.label}, attempt {attempt}" if len(episodes) > 1 else act.label
            turns = [_turn(turn) for turn in episode.turns]
            tracks.append({"kind": "run", "run": number, "name": name, "turns": turns})
    return tracks


def _replayed(replay: ReplayRun, record: Replayed, answers: dict[str, list[tuple[int, StepAgreement]]]) -> Value:
    """A trajectory as it happened again; as it was recorded, where the replay kept nothing of it."""
    steps, recorded = replay.steps.get(record.trajectory_id, []), replay.recorded.get(record.trajectory_id)
    then = [turn for turn in recorded.turns if turn.command] if recorded else []
    turns = [_step(step, then, answers.pop(step.step_id, [])) for step in steps] or [_turn(turn) for turn in then]
    return {
        "kind": "teacher",
        "name": recorded.model if recorded else "teacher",
        "source": replay.label,
        "trajectory": record.trajectory_id,
        "objection": record.objection,
        "repairs": list(record.repairs),
        "statuses": record.statuses,
        "same_patch": record.same_patch,
        "resolved": record.resolved,
        "turns": turns,
    }


def _taught(taught: Taught) -> Value:
    """A trajectory that no run has replayed."""
    return {
        "kind": "teacher",
        "name": taught.trajectory.model,
        "source": taught.label,
        "trajectory": taught.trajectory.trajectory_id,
        "objection": taught.objection,
        "resolved": taught.trajectory.resolved,
        "turns": [_turn(turn) for turn in taught.trajectory.turns],
    }


def _unseen(answers: Mapping[str, list[tuple[int, StepAgreement]]]) -> list[Value]:
    """Answers to steps of which no given run holds the teacher's side."""
    found: dict[str, list[Value]] = {}
    for step_id, rows in answers.items():
        index = step_id.rpartition("/")[2]
        turn = {
            "index": int(index) if index.isdecimal() else 0,
            "tool": rows[0][1].tool,
            "unseen": True,
            "answers": [_answers(*row) for row in rows],
        }
        found.setdefault(rows[0][1].trajectory_id, []).append(turn)
    return [
        {"kind": "teacher", "name": "teacher", "source": "", "trajectory": name, "turns": sorted(turns, key=_index)}
        for name, turns in found.items()
    ]


def _index(turn: Value) -> int:
    return int(turn["index"])


def _step(step: Step, recorded: Sequence[Turn], answers: Sequence[tuple[int, StepAgreement]]) -> Value:
    shown: Value = {
        "index": step.index,
        "thought": shorten(step.thought, MAX_CHARS),
        "tool": step.command.tool,
        "action": format_action(step.command),
        "output": shorten(step.observation, MAX_CHARS),
        "exit": step.exit_code,
        "replay": step.fidelity.model_dump(mode="json"),
        "flags": list(step.flags),
        "answers": [_answers(*row) for row in answers],
    }
    if step.fidelity.status != "faithful" and step.index < len(recorded):
        shown["recorded"] = shorten(recorded[step.index].observation, MAX_CHARS)
    return shown


def _turn(turn: Turn) -> Value:
    parsed = None if turn.command else parse(turn.completion)
    return {
        "thought": shorten(turn.thought, MAX_CHARS),
        "tool": turn.command.tool if turn.command else "",
        "action": format_action(turn.command) if turn.command else "",
        "written": "" if turn.command else shorten(turn.completion, MAX_CHARS),
        "problem": parsed.problem if parsed else "",
        "output": shorten(turn.observation, MAX_CHARS),
        "exit": turn.exit_code,
        "timed_out": turn.timed_out,
    }


def _answers(run: int, row: StepAgreement) -> Value:
    return {
        "run": run,
        "mean": row.similarity,
        "std": row.similarity_std,
        "num": row.num_samples,
        "well_formed": row.num_well_formed,
        "same_tool": row.num_same_tool,
        "tokens": row.mean_tokens,
        "samples": [_sample(sample) for sample in row.samples],
    }


def _sample(sample: Rollout) -> Value:
    parsed = parse(sample.text)
    return {
        "thought": shorten(parsed.thought, MAX_CHARS),
        "action": format_action(parsed.command) if parsed.command else "",
        "written": "" if parsed.command else shorten(sample.text, MAX_CHARS),
        "problem": parsed.problem,
        "value": sample.reward.value,
        "parts": sample.reward.parts,
        "note": sample.reward.note,
        "tokens": sample.num_tokens,
    }


def _of_run(act: Acts, task_id: str) -> Value | None:
    """One run's cell in a line of the list: of several attempts the best, and how they ended."""
    attempts, steps = act.attempts(task_id), act.agreement.get(task_id, [])
    if not attempts and not steps:
        return None
    statuses = [_status(prediction, verdict) for prediction, verdict in attempts]
    predictions = [prediction for prediction, _ in attempts if prediction]
    cell: Value = {
        "status": "resolved" if "resolved" in statuses else next(iter(statuses), ""),
        "statuses": list(dict.fromkeys(statuses)),
        "attempts": len(attempts),
        "resolved": statuses.count("resolved"),
        "failing": min((len(verdict.tests_failed) for _, verdict in attempts if verdict), default=0),
        "turns": max((prediction.num_turns for prediction in predictions), default=0),
        "malformed": sum(prediction.num_malformed for prediction in predictions),
        "steps": len(steps),
    }
    if steps:
        cell["agreement"] = sum(row.similarity for row in steps) / len(steps)
        cell["malformed"] += sum(row.num_samples - row.num_well_formed for row in steps)
    return cell


def _status(prediction: Prediction | None, verdict: Verdict | None) -> str:
    if verdict:
        return verdict.status
    return "infra_failure" if prediction and prediction.infra_failure else "not_graded"


def _outcomes(act: Acts, task_id: str) -> list[Value]:
    """Of each attempt the verdict with its failing tests, and what it took."""
    attempts = act.attempts(task_id)
    found = []
    for prediction, verdict in attempts:
        shown: Value = {"status": _status(prediction, verdict)}
        if verdict:
            shown["verdict"] = verdict.model_dump(mode="json", exclude={"task_id", "model"})
            if not verdict.resolved and len(attempts) == 1:
                shown["log"] = _log(act.folders, verdict)
        if prediction:
            shown["prediction"] = prediction.model_dump(mode="json", exclude={"task_id", "model", "patch"})
            shown["patch"] = shorten(prediction.patch, MAX_CHARS)
        found.append(shown)
    return found


def _log(folders: Iterable[Path], verdict: Verdict) -> str:
    """The end of what the tests printed in the box."""
    for folder in folders:
        root = folder / "logs" / "run_evaluation" / folder.resolve().name
        path = root / model_folder(verdict.model) / verdict.task_id / "test_output.txt"
        if path.is_file():
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 4 * MAX_LOG_CHARS))
                return file.read().decode(errors="replace")[-MAX_LOG_CHARS:]
    return ""


def _worst(teachers: Iterable[Value]) -> str:
    """What is worst about the replays of a task."""
    found: set[str] = set()
    for track in teachers:
        found.update(name for name, number in track.get("statuses", {}).items() if number)
        if track.get("objection"):
            found.add("rejected")
    return next((name for name in ("rejected", "lost", "drifted", "faithful") if name in found), "")
