"""What every sandbox backend promises."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self

from pydantic import Field, model_validator

from swe_srl.runtime.confinement import Confinement, Limits, load_profile
from swe_srl.settings import Config


class CommandResult(NamedTuple):
    """What became of one command. A failure and a time-out are results; a box that is gone is a SandboxError."""

    output: str
    """Standard output and error as they were interleaved, decoded as UTF-8 with replacement; cut at the output limit."""
    exit_code: int | None
    """None when the command was killed at its time-out."""
    timed_out: bool = False
    num_bytes_dropped: int = 0
    """Output beyond the limit that was read and thrown away."""
    duration_s: float = 0.0


class SandboxConfig(Config):
    """How boxes are made."""

    type: Literal["docker", "bubblewrap"] = "docker"
    """`docker`: the engine's containers. `bubblewrap`: without an engine and without root; see runtime/rootless/machine.py for
    what that does not keep apart."""
    archives: Path | None = None
    """For `bubblewrap`: the folder that holds images as `docker save` or `skopeo copy` wrote them."""
    cluster: str = ""
    """`host:port` of the head of a Ray cluster on whose machines boxes are opened, see docs/cluster.md; on this one where empty."""
    cluster_boxes: int = Field(8, ge=1)
    """Boxes at once on each machine of the cluster; who wants more waits."""
    profile: str = "default"
    """Of sandboxes/profiles: what a box may do, and its limits."""
    limits: Limits = Limits()
    """Those given here go before the profile's."""
    network: tuple[str, ...] | None = None
    """Hosts that a box may reach, in place of the profile's; none by default. Needs python3 in the image."""
    image_cap_gib: float = Field(100.0, gt=0)
    """Of images that were built, pulled or unpacked for boxes: those not used for longest are removed above it."""
    session: Literal["persistent", "fresh"] = "persistent"
    """`persistent`: cwd, variables and functions carry over, as in SWE-agent; `fresh`: a new shell per command, as in mini-swe-agent."""
    environment: dict[str, str] = Field(
        default_factory=lambda: {
            "PAGER": "cat", "MANPAGER": "cat", "GIT_PAGER": "cat", "LESS": "-R", "TERM": "dumb", "LC_ALL": "C.UTF-8",
            "PIP_PROGRESS_BAR": "off", "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1",
        }
    )  # fmt: skip
    """Variables of every shell; nothing of the host's environment enters a box."""

    @model_validator(mode="before")
    @classmethod
    def _complete_limits(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        given = table.get("limits", {})
        if isinstance(given, Limits):
            given = given.model_dump(exclude_unset=True)
        profile = load_profile(str(table.get("profile", "default"))).limits.model_dump(exclude_unset=True)
        return table | {"limits": profile | given} if profile and isinstance(given, dict) else table

    def allowed_hosts(self) -> tuple[str, ...]:
        """What a box may reach."""
        return self.confinement().network if self.network is None else self.network

    def confinement(self) -> Confinement:
        """The profile. Its limits are those of the profile; `limits` holds the box's own."""
        return load_profile(self.profile)


class Closing:
    """A context manager whose end is its `close`."""

    def close(self) -> None:
        """What the end does."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Sandbox(Protocol):
    """A box. A context manager; `close` may be called twice. Every method raises SandboxError once the box is gone."""

    workdir: str

    def run(self, command: str, *, timeout_s: float) -> CommandResult:
        """Run `command` in bash. At the time-out its whole process group is killed inside the box, what it printed is
        kept, and the next command works.
        """

    def read_file(self, path: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError when there is none, IsADirectoryError for a directory, OSError for
        what is neither, as a pipe.
        """

    def write_file(self, path: str, content: bytes) -> None:
        """Write a file, making its parent directories."""

    def diff(self) -> str:
        """Git diff of the working tree (new files included, ignored ones not) against HEAD at the start, ending in a newline; empty when nothing changed."""

    def close(self) -> None:
        """Remove the box."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
