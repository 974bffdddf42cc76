"""The verbs predict and report with several attempts: wrong input is one sentence and exit code 2, before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swe_srl.benchmarks.gold_files import gold_files
from swe_srl.cli import app
from swe_srl.cli.prices import price_to_count
from swe_srl.errors import UserError
from swe_srl.schema import Prediction, Verdict
from swe_srl.store import Run, write_json
from swe_srl.summaries import Report

GOLD = """\
diff --git a/pkg/new.py b/pkg/new.py
new file mode 100644
--- /dev/null
+++ b/pkg/new.py
@@ -0,0 +1 @@
+secret line
diff --git a/pkg/a.py b/pkg/a.py
--- a/pkg/a.py
+++ b/pkg/a.py
@@ -1 +1 @@
-x = 1
+x = 2
diff --git a/pkg/old.py b/pkg/old.py
deleted file mode 100644
--- a/pkg/old.py
+++ /dev/null
@@ -1 +0,0 @@
-gone
"""


def rows(path: Path, patch: str = GOLD) -> Path:
    row = {
        "instance_id": "a__b-1", "repo": "a/b", "base_commit": "c", "problem_statement": "mend it", "image": "i", "patch": patch,
        "eval_script": "e", "log_parser": "parse_log_pytest", "FAIL_TO_PASS": ["t"], "PASS_TO_PASS": [],
    }  # fmt: skip
    (path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    return path / "rows.jsonl"


def refused(*arguments: object) -> str:
    """What a verb says that is called wrongly."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, UserError), result.output
    assert result.exception.exit_code == 2
    return str(result.exception)


def test_of_an_answer_only_the_names_of_its_files_are_told_and_none_that_it_makes(tmp_path):
    assert gold_files(rows(tmp_path), ["a__b-1"]) == {"a__b-1": ("pkg/a.py", "pkg/old.py")}


@pytest.mark.parametrize("patch", ["", GOLD.partition("diff --git a/pkg/a.py")[0]])
def test_a_task_whose_answer_changes_no_file_has_no_oracle(tmp_path, patch):
    said = refused(
        "predict",
        "--tasks",
        rows(tmp_path, patch),
        "--policy",
        "nowhere/x",
        "--out",
        tmp_path / "o",
        "--mode",
        "oracle",
    )
    assert "the gold patch of a__b-1 is missing or changes no file" in said
    assert "--mode agentless" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mode", "nonsense"], "no evaluation mode 'nonsense': choose one of agent, oracle, agentless"),
        (["--mode", "oracle", "--set", "context.window=1"], "context: Extra inputs are not permitted"),
        (["--mode", "agentless", "--set", "num_samples=4"], "is the same patch again: set sampling.temperature"),
        (["--mode", "agentless", "--set", "choose=best"], "no way 'best' to choose a patch"),
        (["--attempts", "3"], "3 attempts with temperature 0 are the same attempt"),
        (
            ["--attempts", "3", "--set", "sampling.temperature=1", "--choose", "blend"],
            "'blend' compares actions, not patches",
        ),
        (["--set", "limits.max_usd=1"], "no price is known of './nowhere', so limits.max_usd would not hold"),
    ],
)
def test_wrong_input_is_one_sentence_before_a_model_is_loaded(tmp_path, options, said):
    assert said in refused(
        "predict", "--tasks", rows(tmp_path), "--policy", "./nowhere", "--out", tmp_path / "o", *options
    )
    assert not (tmp_path / "o").exists()


def test_a_price_is_what_the_user_says_over_what_a_table_says(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({"models": {"m": {"input": 1.0, "cached_input": 0.1, "output": 2.0}}}))
    assert price_to_count("m", tmp_path / "p.json", None, None).cached_input == 0.1
    given = price_to_count("m", tmp_path / "p.json", 3.0, None)
    assert (given.input, given.cached_input, given.output) == (3.0, None, 2.0)
    assert price_to_count("unknown", None, None, None).is_free


def graded_attempts(path: Path, outcomes: dict[str, str], model: str = "m", mode: str = "agent") -> Path:
    """A run of several attempts at each task: `x` resolved, `.` not; each letter has a patch of its own, equal letters the same."""
    run = Run(path)
    with run.append("predictions.jsonl", Prediction) as predictions, run.append("verdicts.jsonl", Verdict) as verdicts:
        for task_id, marks in outcomes.items():
            for number, mark in enumerate(marks):
                item = Prediction(
                    task_id=task_id, model=model, patch=f"+{mark}\n", exit_status="submitted", attempt=number, num_turns=2,
                    mode=mode, duration_s=3.0, answer_tokens=(10, 30),
                )  # fmt: skip
                predictions.write(item)
                verdicts.write(
                    Verdict(
                        task_id=task_id, model=model, attempt=number, patch_digest=item.patch_digest,
                        status="resolved" if mark == "x" else "unresolved",
                    )
                )  # fmt: skip
    places = [[task_id, model, number] for task_id, marks in outcomes.items() for number in range(len(marks))]
    write_json(path / "grade.json", {"task_ids": list(outcomes), "submitted": places})
    return path


def report(out: Path, *arguments: object) -> Report:
    result = CliRunner().invoke(app, ["report", *map(str, arguments), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return Report.model_validate_json((out / "report.json").read_text())


def test_pass_at_k_and_best_of_n_are_reported_beside_the_pooled_share(tmp_path):
    run = graded_attempts(tmp_path / "r", {"a": "x...", "b": "xx.x", "c": "....", "d": "x.x."})
    (summary,) = report(tmp_path / "out", run, "--best-of", "votes", "--best-of", "first").runs
    assert (summary.resolved.k, summary.resolved.n, summary.counts["attempts"], summary.counts["tasks"]) == (
        6,
        16,
        4,
        4,
    )
    assert {k: round(mean.value, 6) for k, mean in summary.pass_at.items()} == {
        1: pytest.approx((1 / 4 + 3 / 4 + 0 + 2 / 4) / 4),
        2: pytest.approx((1 / 2 + 1 + 0 + 5 / 6) / 4),
        3: pytest.approx((3 / 4 + 1 + 0 + 1) / 4),
        4: pytest.approx(3 / 4),
    }
    assert (summary.best_of["votes"].k, summary.best_of["votes"].n) == (2, 4), (
        "b, and d where two are equal and the first is"
    )
    assert (summary.best_of["first"].k, summary.best_of["first"].n) == (3, 4)
    assert summary.exit_statuses == {"submitted": 16}
    assert summary.answer_tokens is not None
    assert (summary.answer_tokens.n, summary.answer_tokens.p50) == (32, 20.0)
    shown = (tmp_path / "out" / "report.md").read_text()
    assert all(words in shown for words in ("pass@2", "best of 4 by votes", "tokens per answer", "## Rates"))


def test_seeds_in_several_directories_are_pooled_where_that_is_asked(tmp_path):
    runs = [graded_attempts(tmp_path / str(seed), {"a": "x", "b": mark}) for seed, mark in enumerate("x..")]
    apart = report(tmp_path / "apart", *runs)
    assert [(item.model, item.resolved.n) for item in apart.runs] == [("m", 2), ("m (1)", 2), ("m (2)", 2)]
    assert all("p_mcnemar" in row for row in apart.paired if row["measure"] == "resolved")
    (pooled,) = report(tmp_path / "pooled", *runs, "--pool").runs
    assert (pooled.model, pooled.resolved.k, pooled.resolved.n, pooled.counts["attempts"]) == ("m", 4, 6, 3)
    assert pooled.pass_at[3].value == 1.0


def test_runs_in_other_modes_are_not_pooled(tmp_path):
    runs = [graded_attempts(tmp_path / mode, {"a": "x"}, mode=mode) for mode in ("agent", "oracle")]
    assert [(item.model, item.resolved.n) for item in report(tmp_path / "out", *runs, "--pool").runs] == [
        ("m", 1),
        ("m (oracle)", 1),
    ]


def test_runs_of_several_attempts_are_compared_by_task_and_not_by_mcnemar(tmp_path):
    first = graded_attempts(tmp_path / "1", {"a": "x.", "b": ".."}, "one")
    second = graded_attempts(tmp_path / "2", {"a": "xx", "b": ".x"}, "two")
    (row,) = [row for row in report(tmp_path / "out", first, second).paired if row["measure"] == "resolved"]
    assert (row["n"], row["value"], row["only_first"], row["only_second"]) == (2, 0.5, 0, 2)
    assert "p_mcnemar" not in row
    assert row["p_sign_flip"] == 0.5
    assert "+0.500 [+0.500, +0.500] | 2 | 0.500 |" in (tmp_path / "out/report.md").read_text()


def test_a_way_to_choose_that_does_not_exist_is_one_sentence(tmp_path):
    run = graded_attempts(tmp_path / "r", {"a": "x."})
    assert "no way 'luck' to choose" in refused("report", run, "--out", tmp_path / "out", "--best-of", "luck")
