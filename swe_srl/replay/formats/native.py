"""Our own `trajectories.jsonl` → Trajectories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from swe_srl.replay.formats.base import BadRecord
from swe_srl.schema import Trajectory

NAME = "swe-srl"

_ENVELOPE = ("kind", "schema_version", "made_by")


def sniff(path: Path, head: str) -> bool:
    """JSONL whose lines say that they are Trajectories."""
    return path.suffix == ".jsonl" and (
        not head.strip() or '"kind": "Trajectory"' in head[:200] or '"trajectory_id"' in head[:400]
    )


def read(path: Path) -> Iterator[Trajectory | BadRecord]:
    """One trajectory a line; a bad line does not hide the others."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                kind = value.get("kind", "Trajectory") if isinstance(value, dict) else type(value).__name__
                if kind != "Trajectory":
                    yield BadRecord(str(path), number, f"a {kind}, not a Trajectory")
                    continue
                yield Trajectory.model_validate({key: item for key, item in value.items() if key not in _ENVELOPE})
            except ValidationError as error:
                first = error.errors()[0]
                yield BadRecord(
                    str(path), number, f"not a Trajectory: {'.'.join(map(str, first['loc']))}: {first['msg']}"
                )
            except ValueError as error:
                yield BadRecord(str(path), number, f"not JSON: {error}")
