"""Metrics of updates → the trackers that a run names, beside `metrics.jsonl`, which is always written.

A tracker is another's program, and often another's server: one that fails is reported once and left alone, and the run
goes on.
"""

from __future__ import annotations

import importlib.util
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from sys import stderr
from typing import Any, NamedTuple, Protocol

from swe_srl.errors import ConfigError, UserError
from swe_srl.store import Run, read_json, write_json
from swe_srl.training.metrics import UpdateMetrics

PROJECT = "swe-srl"
IDENTITY = "tracking.json"
"""File of a run that holds the id under which trackers know it."""


class Tracked(NamedTuple):
    """What a tracker is told of a run when it begins or goes on."""

    directory: Path
    key: str
    """The same each time."""
    first_update: int
    """What was logged from this update on is logged again."""
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.directory.resolve().name}-{self.key[:6]}"


class Tracker(Protocol):
    """Made when the run begins or goes on; may raise anything."""

    def __init__(self, run: Tracked) -> None: ...

    def log(self, update: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one update."""

    def close(self) -> None:
        """No more will come."""


class TensorBoard:
    """Event files in `RUN/tensorboard`."""

    def __init__(self, run: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.directory / "tensorboard"), purge_step=run.first_update)

    def log(self, update: int, values: Mapping[str, float]) -> None:
        """See Tracker."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, update)
        self._writer.flush()

    def close(self) -> None:
        """See Tracker."""
        self._writer.close()


class Wandb:
    """Weights & Biases; with WANDB_MODE=offline files in `RUN/wandb`, for which no account is needed."""

    def __init__(self, run: Tracked) -> None:
        import wandb

        self._run = wandb.init(
            project=PROJECT, id=run.key, name=run.name, dir=str(run.directory), resume="allow", config=run.settings
        )

    def log(self, update: int, values: Mapping[str, float]) -> None:
        """See Tracker."""
        self._run.log(dict(values), step=update)

    def close(self) -> None:
        """See Tracker."""
        self._run.finish()


class Trackio:
    """Trackio's database, where TRACKIO_DIR says; `trackio show` draws it."""

    def __init__(self, run: Tracked) -> None:
        import trackio

        with redirect_stdout(stderr):
            self._run = trackio.init(
                PROJECT, run.name, resume="allow", config=run.settings, embed=False, auto_log_gpu=False,
                auto_log_cpu=False,
            )  # fmt: skip

    def log(self, update: int, values: Mapping[str, float]) -> None:
        """See Tracker."""
        self._run.log(dict(values), step=update)

    def close(self) -> None:
        """See Tracker."""
        import trackio

        with redirect_stdout(stderr):
            trackio.finish()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}
"""By the name that a run gives, which is also that of the package."""


def require(names: Sequence[str]) -> None:
    """Raises ConfigError where a tracker's package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"trackers: {name!r} is not installed: pip install 'swe-srl[trackers]', or leave it out of `trackers`"
            )


@contextmanager
def tracking(names: Sequence[str], run: Run, settings: dict[str, Any], first_update: int) -> Iterator[_All]:
    """The trackers of a run that begins or goes on at `first_update`. Raises UserError where one cannot be begun."""
    told = Tracked(run.path, _key(run) if names else "", first_update, settings)
    trackers = _All({name: _begun(name, told) for name in names})
    try:
        yield trackers
    finally:
        trackers.close()


def _key(run: Run) -> str:
    path = run.path / IDENTITY
    if not path.is_file():
        write_json(path, {"id": uuid.uuid4().hex})
    return str(read_json(path)["id"])


def _begun(name: str, run: Tracked) -> Tracker:
    try:
        return TRACKERS[name](run)
    except Exception as error:
        raise UserError(
            f"trackers: {name} could not be begun ({type(error).__name__}: {error}): set it up, or leave it out of `trackers`"
        ) from error


class _All:
    """Every tracker of a run; none of them can stop it."""

    def __init__(self, trackers: dict[str, Tracker]) -> None:
        self._trackers = trackers

    def log(self, metrics: UpdateMetrics) -> None:
        """Hand on what an update came to."""
        values = numbers(metrics)
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.log(metrics.update, values)
            except Exception as error:  # noqa: BLE001 - whatever another's program does, the run goes on
                self._drop(name, error)

    def close(self) -> None:
        """End them all."""
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.close()
            except Exception as error:  # noqa: BLE001 - as above
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        del self._trackers[name]
        logging.getLogger(__name__).warning(
            "%s failed (%s: %s): the run goes on without it; metrics.jsonl has everything", name, type(error).__name__, error
        )  # fmt: skip


def numbers(metrics: UpdateMetrics) -> dict[str, float]:
    """Every number of an update by name, `collected/groups_thrown/rewards alike` for one that stands deeper."""
    values: dict[str, float] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{name}/{key}" if name else str(key), inner)
        elif isinstance(value, int | float):
            values[name] = float(value)

    add("", metrics.model_dump(exclude={"update", "num_updates"}))
    return values
