"""Name of a profile in sandboxes/profiles/ → what a box may do and use."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any

from pydantic import Field, ValidationError

from swe_srl.assets import material
from swe_srl.errors import ConfigError
from swe_srl.settings import Config


class Limits(Config):
    """What one box may use. What a config does not give, its profile gives, and else these defaults."""

    cpus: float = Field(2.0, gt=0)
    """Processors; a share of them with Docker, a choice of whole ones without an engine."""
    memory_mib: int = Field(2048, ge=64)
    """Of the whole box with Docker; of each process, by RLIMIT_DATA, without an engine."""
    pids: int = Field(256, ge=16)
    disk_mib: int = Field(10240, ge=16)
    """What the box may hold beyond its image. A command that goes beyond is killed; looked at every second or so."""
    shm_mib: int = Field(64, ge=1)
    """Size of /dev/shm."""
    output_bytes: int = Field(1_000_000, ge=1000)
    """Of one command; what is beyond it is counted and dropped."""


class Confinement(Config):
    """A profile. No network of its own, no new privileges and no device but the harmless ones hold for every box."""

    capabilities: tuple[str, ...] = ()
    """Linux capabilities that the box keeps, without `CAP_`; all others are dropped."""
    seccomp_deny: tuple[str, ...] = ()
    """System calls that fail with EPERM, beside those that make a new user namespace."""
    network: tuple[str, ...] = ()
    """Hosts that a box may reach through a proxy: `example.org` (ports 80 and 443), `*.example.org`, `example.org:8080`."""
    limits: Limits = Limits()


@cache
def load_profile(name: str) -> Confinement:
    """The profile of that name. Raises ConfigError."""
    table = _read(name)
    try:
        return Confinement.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"profile {name!r} in sandboxes/profiles: {where}: {first['msg']}") from error


def _read(name: str) -> dict[str, Any]:
    folder = material("sandboxes", "profiles")
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise ConfigError(f"no profile {name!r} in {folder}: give one of {known}")
    table = tomllib.loads(path.read_text())
    parent = table.pop("include", None)
    if parent is None:
        return table
    inherited = _read(parent)
    return inherited | table | {"limits": inherited.get("limits", {}) | table.get("limits", {})}
