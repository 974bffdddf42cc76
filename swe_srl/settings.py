"""TOML file or preset name, plus `--set a.b=c` → a typed, frozen config."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from swe_srl.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"


class Config(BaseModel):
    """Base of all configs: frozen, unknown keys refused, a field's words stand under it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


C = TypeVar("C", bound=Config)


def read_toml(name: str | Path) -> dict[str, Any]:
    """The table in a TOML file, or in the preset of that name."""
    path = Path(name)
    if not path.is_file():
        path = PRESETS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise ConfigError(f"no file and no preset {str(name)!r}: give a path to a TOML file or one of {known}")
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def parse_value(text: str) -> Any:
    """`text` as a TOML value; a bare word that is none is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def apply_overrides(table: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `table` with each `a.b=c` set.

    Setting a `type` to another variant drops its sibling keys, which belong to the old one.
    """
    result: dict[str, Any] = _copy(table)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {override!r} is not of the form a.b=value")
        *parents, leaf = key.strip().split(".")
        node = result
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set {override!r}: {parent!r} is a value, not a table")
            node = child
        value = parse_value(text.strip())
        if leaf == "type" and node.get("type") != value:
            node.clear()
        node[leaf] = value
    return result


def merge(table: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A copy of `table` in which `over` changes what it names; a nested table of another `type` takes the place of the old one."""
    result = _copy(table)
    for key, value in over.items():
        before = result.get(key)
        if not isinstance(value, dict):
            result[key] = value
        elif isinstance(before, dict) and value.get("type", before.get("type")) == before.get("type"):
            result[key] = merge(before, value)
        else:
            result[key] = _copy(value)
    return result


def _copy(table: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in table.items()}


def build(config: type[C], table: dict[str, Any], origin: str) -> C:
    """Validate `table`; the first thing wrong with it becomes one sentence.

    A nested table changes the settings that it names in the field's default; the rest of that default stays.
    """
    try:
        return config.model_validate(_over_defaults(config, table))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise ConfigError(f"{origin}: {where}: {first['msg'].rstrip('.')} (got {first['input']!r:.80})") from error


def _over_defaults(config: type[Config], table: dict[str, Any]) -> dict[str, Any]:
    defaults = {name: field.default for name, field in config.model_fields.items()}
    return {name: _over(defaults.get(name), value) for name, value in table.items()}


def _over(default: Any, value: Any) -> Any:
    """`value` over a default that is a config of the same type; else `value` alone."""
    if not isinstance(value, dict) or not isinstance(default, Config):
        return value
    if value.get("type", getattr(default, "type", None)) != getattr(default, "type", None):
        return value
    said = {name: getattr(default, name) for name in (*default.model_fields_set, "type") if hasattr(default, name)}
    return said | {name: _over(getattr(default, name, None), inner) for name, inner in value.items()}


def load(config: type[C], name: str | Path, overrides: Sequence[str] = ()) -> C:
    """Preset or file `name`, overridden by `--set`, as a `config`. Raises ConfigError."""
    return build(config, apply_overrides(read_toml(name), overrides), origin=str(name))
