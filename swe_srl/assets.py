"""The only door from code to `sandboxes/` and `trajectories/`, which hold material and no Python."""

from __future__ import annotations

import os
from pathlib import Path

from swe_srl.errors import ConfigError

_PACKAGE = Path(__file__).parent


def material(*parts: str) -> Path:
    """Path of a material file, e.g. `material("sandboxes", "recipes", "toolz.toml")`.

    In a checkout the folders stand beside the package; in a wheel, inside it under `_material`.
    """
    for root in (_PACKAGE.parent, _PACKAGE / "_material"):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise ConfigError(f"no material {'/'.join(parts)!r}: reinstall swe-srl, or run it from a checkout")


def cache_dir(name: str) -> Path:
    """A folder for what can be made again: `$SWE_SRL_CACHE` or `~/.cache/swe-srl`, created on demand."""
    root = Path(os.environ.get("SWE_SRL_CACHE", "") or Path.home() / ".cache" / "swe-srl")
    path = root / name
    path.mkdir(parents=True, exist_ok=True)
    return path
