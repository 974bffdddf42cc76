"""Predictions files of SWE-bench tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swe_srl.errors import FormatError, UnknownTask, UserError
from swe_srl.grading.predictions import check_known, read_predictions, write_predictions
from swe_srl.schema import Prediction
from swe_srl.store import Run

ONE = {"instance_id": "a__b-1", "model_name_or_path": "m", "model_patch": "diff\n"}
TWO = {"instance_id": "a__b-2", "model_name_or_path": "m", "model_patch": None}


def lines(*objects: object) -> str:
    return "".join(json.dumps(item) + "\n" for item in objects)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", lines(ONE, TWO)),
        ("p.json", json.dumps([ONE, TWO])),
        ("preds.json", json.dumps({"a__b-1": ONE, "a__b-2": TWO})),
    ],
)
def test_every_shape_that_swebench_takes_is_read(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert [(item.task_id, item.patch) for item in read_predictions(path)] == [("a__b-1", "diff\n"), ("a__b-2", "")]


def test_a_directory_of_pred_files_is_read(tmp_path: Path) -> None:
    for item in (ONE, TWO):
        folder = tmp_path / str(item["instance_id"])
        folder.mkdir()
        (folder / f"{folder.name}.pred").write_text(json.dumps(item, indent=2))
    assert [item.task_id for item in read_predictions(tmp_path)] == ["a__b-1", "a__b-2"]


def test_our_own_predictions_keep_their_turns_and_tokens(tmp_path: Path) -> None:
    prediction = Prediction(task_id="a__b-1", model="m", patch="diff\n", exit_status="submitted", num_turns=7)
    with Run(tmp_path).append("predictions.jsonl", Prediction) as file:
        file.write(prediction)
    assert read_predictions(tmp_path) == [prediction]


def test_a_patch_gets_the_newline_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(lines(ONE | {"model_patch": "diff"}))
    assert read_predictions(path)[0].patch == "diff\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lines(ONE) + "{oops\n", "line 2: not JSON"),
        (lines(ONE, {"instance_id": "x"}), "line 2: no 'model_name_or_path'"),
        (lines(ONE | {"model_patch": 3}), "line 1: 'model_patch' is int"),
        (lines(ONE, TWO, ONE), "line 3: a__b-1 was already predicted by m at .*line 1"),
        (lines(ONE) + "[]\n", "line 2: expected an object"),
        ("\n", "no predictions"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError, match=words):
        read_predictions(path)


def test_a_missing_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_predictions(tmp_path / "nothing.jsonl")
    with pytest.raises(UserError, match="holds no predictions"):
        read_predictions(tmp_path)


@pytest.mark.parametrize("name", ["preds.json", "p.jsonl"])
def test_what_we_write_swebench_reads(tmp_path: Path, name: str) -> None:
    from swebench.harness.utils import get_predictions_from_file

    write_predictions(
        tmp_path / name, [Prediction(task_id="a__b-1", model="m", patch="diff\n", exit_status="submitted")]
    )
    assert get_predictions_from_file(str(tmp_path / name), "unused", "test") == [ONE]


def test_unknown_tasks_are_named_and_counted() -> None:
    predictions = [Prediction(task_id=f"t-{number}", model="m", patch="", exit_status="") for number in range(6)]
    with pytest.raises(UnknownTask, match="t-1, t-2, t-3 and 2 more"):
        check_known(predictions, {"t-0"}, "tasks")
