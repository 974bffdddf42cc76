"""A predictions file of any SWE-bench tool → Predictions, and back.

JSONL or `.pred`: one object a line (a `.pred` holds one object, which may be indented); `.json` (`preds.json`): a list, or
a dict keyed by instance id. Our own `predictions.jsonl` is JSONL of Prediction records. A directory is searched for
`predictions.jsonl`, then `preds.json`, then `*.pred` below it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swe_srl.errors import FormatError, UnknownTask, UserError
from swe_srl.schema import Prediction
from swe_srl.store import read_json, read_jsonl, write_json, write_text

FIELDS = ("instance_id", "model_name_or_path", "model_patch")
"""SWE-bench's own names; others in the object are ignored, as SWE-bench does."""

_ENVELOPE = ("kind", "schema_version", "made_by")


def read_predictions(path: str | Path) -> list[Prediction]:
    """All predictions in a file or directory, each patch ending in a newline.

    Raises FormatError naming file and line of a malformed one, and of a task that is predicted twice by one model, unless
    the two are numbered attempts.
    """
    found: dict[tuple[str, str, int], Prediction] = {}
    seen: dict[tuple[str, str, int], str] = {}
    for where, value in _objects(Path(path)):
        prediction = _ours(where, value) if value.get("kind") == "Prediction" else _swe_bench(where, value)
        key = (prediction.task_id, prediction.model, prediction.attempt)
        if key in found and not found[key].infra_failure:  # a failure of the apparatus was tried again
            raise FormatError(
                f"{where}: {key[0]} was already predicted by {key[1]} at {seen[key]}: keep one of the two"
            )
        seen[key] = where
        found[key] = prediction
    if not found:
        raise FormatError(f"{path}: no predictions in it: expected objects with {', '.join(FIELDS)}")
    return list(found.values())


def check_known(predictions: Iterable[Prediction], known: Collection[str], origin: str | Path) -> None:
    """Raise UnknownTask, before anything is run, when a prediction is for a task that is not among `known`."""
    unknown = sorted({prediction.task_id for prediction in predictions} - set(known))
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UnknownTask(
            f"{origin}: no task {', '.join(unknown[:3])}{more} among the {len(known)} given: "
            "are these predictions for other --tasks?"
        )


def swe_bench_object(prediction: Prediction) -> dict[str, str]:
    """`prediction` under SWE-bench's field names."""
    return {"instance_id": prediction.task_id, "model_name_or_path": prediction.model, "model_patch": prediction.patch}


def write_predictions(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Write a whole file in SWE-bench's format: `.json` is a dict keyed by instance id, anything else JSONL."""
    objects = [swe_bench_object(prediction) for prediction in predictions]
    if Path(path).suffix == ".json":
        write_json(path, {item["instance_id"]: item for item in objects})
    else:
        write_text(path, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in objects))


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, object) for each prediction under `path`."""
    if path.is_dir():
        for name in ("predictions.jsonl", "preds.json"):
            if (path / name).is_file():
                yield from _objects(path / name)
                return
        parts = sorted(path.rglob("*.pred"))
        if not parts:
            raise UserError(
                f"{path} holds no predictions.jsonl, no preds.json and no .pred file: give the path of a predictions file"
            )
        for part in parts:
            yield from _objects(part)
    elif path.suffix in (".json", ".pred"):
        yield from _values(path, read_json(path))
    else:
        for number, value in read_jsonl(path):
            yield f"{path}, line {number}", value


def _values(path: Path, value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """The predictions in a JSON value: one object, a list of them, or a dict keyed by instance id."""
    if isinstance(value, dict) and "instance_id" in value:
        yield str(path), value
        return
    if isinstance(value, dict):
        entries = [(f"{path}, key {key!r}", item) for key, item in value.items()]
    elif isinstance(value, list):
        entries = [(f"{path}, item {number}", item) for number, item in enumerate(value, start=1)]
    else:
        raise FormatError(f"{path}: expected a list or a dict of predictions, found {type(value).__name__}")
    for where, item in entries:
        if not isinstance(item, dict):
            raise FormatError(f"{where}: expected an object, found {type(item).__name__}")
        yield where, item


def _swe_bench(where: str, value: dict[str, Any]) -> Prediction:
    for field in FIELDS:
        if field not in value:
            raise FormatError(f"{where}: no {field!r}: a prediction has {', '.join(FIELDS)}")
        text = value[field]
        if not isinstance(text, str) and not (field == "model_patch" and text is None):
            raise FormatError(f"{where}: {field!r} is {type(text).__name__}, expected a string")
    return Prediction(
        task_id=value["instance_id"],
        model=value["model_name_or_path"],
        patch=normalise_patch(value["model_patch"]),
        exit_status="",
    )


def _ours(where: str, value: dict[str, Any]) -> Prediction:
    try:
        prediction = Prediction.model_validate({key: item for key, item in value.items() if key not in _ENVELOPE})
    except ValidationError as error:
        first = error.errors()[0]
        raise FormatError(f"{where}: not a Prediction: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return prediction.model_copy(update={"patch": normalise_patch(prediction.patch)})


def normalise_patch(patch: str | None) -> str:
    """`patch` ending in a newline, without which `git apply` calls it corrupt; nothing but white space is an empty patch."""
    if patch is None or not patch.strip():
        return ""
    return patch if patch.endswith("\n") else patch + "\n"
