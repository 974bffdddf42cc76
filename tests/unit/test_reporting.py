"""Run directories become numbers with every denominator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swe_srl.errors import FormatError, UserError
from swe_srl.reporting.collect import collect
from swe_srl.reporting.render import markdown, summary_table, write_report
from swe_srl.reporting.summarise import summarise
from swe_srl.schema import Prediction, StepAgreement, Usage, Verdict, VerdictStatus
from swe_srl.store import Run, write_json
from swe_srl.summaries import Report


def make_run(
    path: Path,
    model: str,
    statuses: dict[str, VerdictStatus],
    similarities: dict[str, float] | None = None,
    num_tasks: int = 8,
) -> Path:
    run = Run(path)
    with run.append("predictions.jsonl", Prediction) as predictions, run.append("verdicts.jsonl", Verdict) as verdicts:
        for task_id, status in statuses.items():
            failure = "gone" if status == "infra_failure" else ""
            usage = Usage(completion_tokens=100)
            predictions.write(
                Prediction(
                    task_id=task_id,
                    model=model,
                    patch="p",
                    exit_status="submitted",
                    num_turns=4,
                    num_malformed=1,
                    usage=usage,
                    infra_failure=failure,
                )
            )
            verdicts.write(Verdict(task_id=task_id, model=model, patch_digest="d", status=status))
    write_json(
        path / "grade.json",
        {
            "task_ids": [str(number) for number in range(num_tasks)],
            "submitted": [[task_id, model] for task_id in statuses],
        },
    )
    if similarities:
        add_agreement(path, model, similarities)
    return path


def add_agreement(path: Path, model: str, similarities: dict[str, float]) -> Path:
    with Run(path).append("step_agreement.jsonl", StepAgreement) as rows:
        for step_id, value in similarities.items():
            rows.write(
                StepAgreement(
                    step_id=step_id, trajectory_id=step_id[0], task_id=step_id[0], model=model, tool="bash",
                    num_samples=4, similarity=value, similarity_std=0.1, num_well_formed=3, num_same_tool=2, constant=0.5,
                )
            )  # fmt: skip
    return path


BASE: dict[str, VerdictStatus] = {
    "0": "resolved", "1": "unresolved", "2": "empty_patch", "3": "patch_failed", "4": "timed_out", "5": "infra_failure",
}  # fmt: skip


def test_every_denominator_is_stated(tmp_path: Path) -> None:
    (run,) = summarise(collect([make_run(tmp_path / "base", "base", BASE)])).runs
    assert run.counts == {
        "tasks": 8, "attempts": 1, "submitted": 6, "graded": 5, "not_graded": 0, "resolved": 1, "unresolved": 1, "tampered": 0, "empty_patch": 1,
        "patch_failed": 1, "timed_out": 1, "infra_failure": 1, "turns": 24, "steps": 0,
    }  # fmt: skip
    assert (run.resolved.k, run.resolved.n) == (1, 5)
    assert run.well_formed_turns is not None
    assert (run.well_formed_turns.k, run.well_formed_turns.n) == (15, 20)
    assert (run.mean_turns, run.mean_completion_tokens) == (4.0, 100.0)


def test_a_failure_of_the_apparatus_is_neither_a_failure_of_the_model_nor_forgotten(tmp_path: Path) -> None:
    (run,) = summarise(collect([make_run(tmp_path / "r", "m", {"0": "resolved", "1": "infra_failure"})])).runs
    assert (run.resolved.k, run.resolved.n) == (1, 1)
    assert run.counts["infra_failure"] == 1


def test_a_prediction_the_apparatus_prevented_counts_before_anything_is_graded(tmp_path: Path) -> None:
    with Run(tmp_path).append("predictions.jsonl", Prediction) as file:
        file.write(Prediction(task_id="0", model="m", patch="", exit_status="", infra_failure="gone"))
        file.write(Prediction(task_id="1", model="m", patch="p", exit_status="submitted", num_turns=1))
    (run,) = summarise(collect([tmp_path])).runs
    assert (run.counts["submitted"], run.counts["graded"], run.counts["not_graded"], run.counts["infra_failure"]) == (
        2,
        0,
        1,
        1,
    )


def test_neighbours_are_compared_on_what_both_did(tmp_path: Path) -> None:
    steps = {f"{task}/{index}": 0.2 for task in "abcdefgh" for index in range(3)}
    base = make_run(tmp_path / "base", "base", BASE, steps)
    better = make_run(
        tmp_path / "srl",
        "srl",
        BASE | {"1": "resolved", "5": "resolved"},
        {key: value + 0.1 for key, value in steps.items()},
    )
    report = summarise(collect([base, better]))
    by_measure = {row["measure"]: row for row in report.paired}
    resolved = by_measure["resolved"]
    # task 5 was an infrastructure failure in the first run, so only five tasks are common
    assert (resolved["n"], resolved["only_first"], resolved["only_second"], resolved["p_mcnemar"]) == (5, 0, 1, 1.0)
    assert by_measure["step_similarity"]["value"] == pytest.approx(0.1)
    assert float(by_measure["step_similarity"]["low"]) > 0
    assert by_measure["step_well_formed"]["value"] == 0


def test_the_parts_of_one_model_may_lie_in_several_directories(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", "m", {"0": "resolved"})
    second = add_agreement(tmp_path / "b", "m", {"0/1": 0.5})
    (run,) = summarise(collect([first, second])).runs
    assert run.step_similarity is not None
    assert run.step_similarity.value == 0.5


def test_a_second_run_of_one_model_stands_for_itself(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, "m", {"0": "resolved"}) for name in ("seed-1", "seed-2")]
    assert [run.model for run in summarise(collect(paths)).runs] == ["m", "m (seed-2)"]


def test_the_last_verdict_is_in_force_and_one_no_longer_submitted_is_not(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.append("verdicts.jsonl", Verdict) as file:
        file.write(Verdict(task_id="0", model="m", patch_digest="old", status="unresolved"))
        file.write(Verdict(task_id="1", model="m", patch_digest="old", status="unresolved"))
        file.write(Verdict(task_id="0", model="m", patch_digest="new", status="resolved"))
    write_json(tmp_path / "grade.json", {"task_ids": ["0", "1"], "submitted": [["0", "m"]]})
    (summary,) = summarise(collect([tmp_path])).runs
    assert (summary.resolved.k, summary.resolved.n, summary.counts["tasks"]) == (1, 1, 2)


def test_predictions_of_another_tool_beside_the_verdicts_are_no_obstacle(tmp_path: Path) -> None:
    path = make_run(tmp_path / "x", "m", {"0": "resolved"})
    (path / "predictions.jsonl").write_text(
        json.dumps({"instance_id": "0", "model_name_or_path": "m", "model_patch": "p"}) + "\n"
    )
    (run,) = summarise(collect([path])).runs
    assert (run.counts["submitted"], run.well_formed_turns) == (1, None)


def test_a_directory_without_a_run_and_a_torn_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        collect([tmp_path])
    (tmp_path / "verdicts.jsonl").write_text('{"kind": "Verdict"}\n')
    with pytest.raises(FormatError, match="line 1"):
        collect([tmp_path])


def test_what_is_written_can_be_read_again_and_the_tables_agree(tmp_path: Path) -> None:
    report = summarise(collect([make_run(tmp_path / "base", "base|x", BASE, similarities={"a0": 0.3})]), title="night")
    json_path, markdown_path = write_report(report, tmp_path / "out")
    assert Report.model_validate_json(json_path.read_text()) == report
    head, line = summary_table(report)
    assert len(head) == len(line)
    assert dict(zip(head, line, strict=True))["of one action at every step"] == "0.500"
    assert line[1] == "1 of 5 = 0.200 [0.036, 0.624]"
    assert "| 8 | 1 | 6 | 5 | 0 | 1 | 1 | 0 | 1 | 1 | 1 | 1 |" in markdown(report)
    assert "base\\|x" in markdown_path.read_text()
