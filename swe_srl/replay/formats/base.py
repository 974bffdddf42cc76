"""What every reader of a trajectory format promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from swe_srl.schema import Trajectory


class BadRecord(NamedTuple):
    """A file, or a line of one, that could not be read, or holds nothing to learn from."""

    path: str
    line: int | None
    """From 1; None where the whole file is meant."""
    reason: str


class TrajectoryFormat(Protocol):
    """A module that reads one format."""

    NAME: str

    def sniff(self, path: Path, head: str) -> bool:
        """Whether a file, of which `head` is the beginning, is in this format."""

    def read(self, path: Path) -> Iterator[Trajectory | BadRecord]:
        """Every trajectory in the file, or what is wrong with it; never raises for what a file holds."""
