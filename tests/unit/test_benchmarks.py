"""Task repos and rows → Tasks and answers."""

import json
import os
from pathlib import Path

import pytest

from swe_srl.benchmarks.dialects import derived_image, image_of
from swe_srl.benchmarks.grading_spec import load_specs, row_of
from swe_srl.benchmarks.load import load_tasks
from swe_srl.benchmarks.rows import read_rows
from swe_srl.benchmarks.task_repo import TaskRepo
from swe_srl.errors import FormatError, UnknownTask, UserError
from swe_srl.making.exchange import export_rows, import_rows
from swe_srl.schema import Task

SHARED = Path(os.environ.get("SWE_SRL_SHARED", Path(__file__).parents[2].parent / "shared"))

ROW = {
    "repo": "ours/pkg",
    "instance_id": "ours__pkg-1",
    "base_commit": "c" * 40,
    "patch": "diff --git a/m.py b/m.py\n--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-GOLD\r\n+GOLDEN\r\n",
    "test_patch": "",
    "problem_statement": "It breaks.\n",
    "version": "1.0",
    "FAIL_TO_PASS": '["t.py::test_a"]',
    "PASS_TO_PASS": ["t.py::test_b"],
    "eval_script": "#!/bin/bash\n: '>>>>> Start Test Output'\npytest\n: '>>>>> End Test Output'\n",
    "log_parser": "parse_log_pytest",
    "eval_type": "pass_and_fail",
}


def rows_file(folder: Path, *rows: dict) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_and_the_repo_made_of_them_hold_the_same_tasks_and_answers(tmp_path):
    rows = rows_file(tmp_path, ROW)
    assert import_rows(rows, tmp_path / "repo").task_ids == ["ours__pkg-1"]
    (again,) = (json.loads(line) for line in export_rows(tmp_path / "repo"))
    for key in (
        "instance_id",
        "base_commit",
        "patch",
        "problem_statement",
        "eval_script",
        "log_parser",
        "PASS_TO_PASS",
    ):
        assert again[key] == ROW[key]
    assert again["FAIL_TO_PASS"] == ["t.py::test_a"]
    assert load_specs(rows) == load_specs(tmp_path / "repo")


def test_swebench_reads_and_approves_an_imported_repo(tmp_path):
    from swebench.task.checks import check_task_repo
    from swebench.task.repo import load_task_repo

    import_rows(rows_file(tmp_path, ROW), tmp_path / "repo")
    assert [str(problem) for problem in check_task_repo(tmp_path / "repo")] == []
    assert load_task_repo(tmp_path / "repo")[0]["patch"] == ROW["patch"]


def test_a_task_holds_nothing_of_its_answer(tmp_path):
    import_rows(rows_file(tmp_path, ROW), tmp_path / "repo")
    for source in (tmp_path / "rows.jsonl", tmp_path / "repo"):
        (task,) = load_tasks(source)
        assert isinstance(task, Task)
        shown = task.model_dump_json(exclude={"image_context"})
        assert "GOLD" not in shown
        assert "test_a" not in shown
        assert "pytest" not in shown


def test_an_unknown_id_names_the_ids_that_look_like_it(tmp_path):
    import_rows(rows_file(tmp_path, ROW), tmp_path / "repo")
    with pytest.raises(UnknownTask, match="ours__pkg-1"):
        load_tasks(tmp_path / "repo", ["ours__pkg-2"])
    with pytest.raises(UnknownTask, match="ours__pkg-1"):
        TaskRepo(tmp_path / "repo").task("ours__pkg")


def test_ids_choose_tasks_and_their_order(tmp_path):
    rows = rows_file(tmp_path, ROW, ROW | {"instance_id": "ours__pkg-0"})
    assert [task.task_id for task in load_tasks(rows)] == ["ours__pkg-0", "ours__pkg-1"]
    assert [task.task_id for task in load_tasks(rows, ["ours__pkg-1"])] == ["ours__pkg-1"]


def test_flaky_tasks_are_used_by_nobody_who_does_not_ask_for_them(tmp_path):
    import_rows(rows_file(tmp_path, ROW, ROW | {"instance_id": "ours__pkg-0"}), tmp_path / "repo")
    (tmp_path / "repo" / "flaky.txt").write_text("ours__pkg-0\n")
    assert [task.task_id for task in load_tasks(tmp_path / "repo")] == ["ours__pkg-1"]
    assert len(load_tasks(tmp_path / "repo", ["ours__pkg-0"])) == 1


@pytest.mark.parametrize("key", ["eval_script", "log_parser", "FAIL_TO_PASS"])
def test_a_row_that_cannot_be_graded_is_named_with_its_reason_and_does_not_stop_the_others(tmp_path, key):
    rows = rows_file(tmp_path, {k: v for k, v in ROW.items() if k != key}, ROW | {"instance_id": "ours__pkg-2"})
    imported = import_rows(rows, tmp_path / "repo")
    assert imported.task_ids == ["ours__pkg-2"]
    assert key in imported.skipped["ours__pkg-1"]


def test_a_row_cannot_be_written_outside_the_repo(tmp_path):
    imported = import_rows(rows_file(tmp_path, ROW | {"instance_id": "../../evil"}), tmp_path / "repo")
    assert not imported.task_ids
    assert "../../evil" in imported.skipped


def test_a_broken_line_is_named_by_file_and_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n{broken\n")
    with pytest.raises(FormatError, match=r"rows\.jsonl, line 2"):
        load_tasks(path)


@pytest.mark.parametrize("name", ["absent", "absent.jsonl", "rows.csv"])
def test_what_is_no_source_of_tasks_is_a_users_mistake(tmp_path, name):
    (tmp_path / "rows.csv").write_text("a,b\n")
    with pytest.raises(UserError):
        load_tasks(tmp_path / name)


def test_a_folder_without_tasks_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="tasks/"):
        load_tasks(tmp_path)


def test_a_parquet_file_that_is_none_is_a_format_error(tmp_path):
    (tmp_path / "rows.parquet").write_text("not parquet")
    with pytest.raises(FormatError, match="parquet"):
        read_rows(tmp_path / "rows.parquet")


def test_an_incomplete_task_is_named_by_its_file(tmp_path):
    import_rows(rows_file(tmp_path, ROW), tmp_path / "repo")
    folder = tmp_path / "repo" / "tasks" / "ours__pkg-1"
    (folder / "problem_statement.md").unlink()
    with pytest.raises(FormatError, match=r"problem_statement\.md"):
        load_tasks(tmp_path / "repo")


def test_the_image_of_a_row_is_looked_for_in_the_order_of_the_generations():
    assert image_of({"instance_id": "a__b-1", "docker_image": "d", "image_name": "n", "image": "i"}) == "i"
    assert image_of({"instance_id": "a__b-1", "docker_image": "d", "image_name": "n"}) == "n"
    assert image_of({"instance_id": "A__b-1"}) == "swebench/sweb.eval.x86_64.a_1776_b-1:latest"


def test_the_derived_image_is_the_one_that_swebench_derives():
    from swebench.task.checks import expected_image

    for task_id in ("toolz__toolz.804973b2.compare__3dde8b7b", "Owner__Name-12"):
        assert derived_image(task_id) == expected_image(task_id)


def test_a_row_of_a_task_and_its_answer_is_what_swebench_makes_a_test_spec_of(tmp_path):
    from swebench.harness.utils import make_test_spec

    rows = rows_file(tmp_path, ROW)
    spec = make_test_spec(row_of(load_tasks(rows)[0], load_specs(rows)["ours__pkg-1"]))
    assert spec.FAIL_TO_PASS == ["t.py::test_a"]
    assert spec.image == derived_image("ours__pkg-1")


@pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason="the shared data are not beside the checkout (SWE_SRL_SHARED)"
)
@pytest.mark.parametrize(
    ("name", "num"),
    [("SWE-bench_Lite_dev.parquet", 23), ("SWE-bench_dev.parquet", 225), ("verified_rows_for_logs.jsonl", 62)],
)
def test_real_swe_bench_rows_are_read_whole(name, num):
    path = SHARED / "data" / "instances" / name
    tasks, specs = load_tasks(path), load_specs(path)
    assert len(tasks) == len(specs) == num
    assert all(spec.fail_to_pass and spec.gold_patch.endswith("\n") for spec in specs.values())
    assert all(task.problem_statement and len(task.base_commit) == 40 for task in tasks)
