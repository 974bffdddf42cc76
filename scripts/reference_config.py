"""Configs and presets → the page docs/reference/config.md. Called by reference.py."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from swe_srl.cli.demo import DemoConfig
from swe_srl.errors import ConfigError
from swe_srl.evaluation.modes import MODES
from swe_srl.evaluation.steps import AgreementConfig
from swe_srl.making.recipe import Recipe
from swe_srl.policy.endpoint import EndpointConfig
from swe_srl.policy.prices import PriceTable
from swe_srl.runtime.base import SandboxConfig
from swe_srl.runtime.confinement import Confinement
from swe_srl.settings import PRESETS, Config, build, read_toml
from swe_srl.study.config import StudyConfig
from swe_srl.teaching.teach import TeachConfig
from swe_srl.training.chain import ChainConfig
from swe_srl.training.config import TrainConfig

INTRODUCTION = """\
A verb takes a preset or a TOML file where it says so, and `--set a.b=value` over it (a TOML value; a bare word is a string).
An unknown name or a value of another type ends with exit code 2 and one sentence. Setting a `type` to another variant begins with
that variant's defaults. `swe-srl train … --dry-run` prints what was resolved."""

ROOTS: tuple[tuple[type[Config], str], ...] = (
    (TrainConfig, "`swe-srl train`: the preset or TOML file, and `--set`."),
    (ChainConfig, "`swe-srl train`, in a file with `[stages.NAME]` tables: each has a `preset`, a `share` and settings of its own; what stands beside them is for all stages."),
    (StudyConfig, "`swe-srl study`: the preset or TOML file, and `--set`."),
    *((mode, f"`swe-srl predict --mode {name}`: the preset or TOML file, and `--set`.") for name, mode in MODES.items()),
    (AgreementConfig, "`swe-srl agree --set`."),
    (TeachConfig, "`swe-srl teach --set`; most have an option of their own."),
    (EndpointConfig, "`swe-srl teach --set endpoint.…`."),
    (SandboxConfig, "`--box` of `grade`, `replay` and `tasks check`; `--set sandbox.…` of `predict` and `teach`; `--set algorithm.sandbox.…` of `train rlvr`."),
    (Confinement, "A file of `sandboxes/profiles/`."),
    (DemoConfig, "`swe-srl demo`: the preset or TOML file, and `--set`."),
    (Recipe, "A TOML file for `swe-srl tasks make`, as it writes them to `OUT/recipes`."),
    (PriceTable, "A file for `--prices`."),
)  # fmt: skip
"""Every config that a user can write, and where it is given."""


def config_page(written_by: str) -> str:
    """Every config that a user can write and all that are reached from them, then the presets."""
    seen: list[type[BaseModel]] = []
    links = "\n".join(f"- [{root.__name__}](#{root.__name__.lower()}): {where}" for root, where in ROOTS)
    parts = ["# Settings", written_by, INTRODUCTION, links]
    for root, where in ROOTS:
        for config in _reached(root, seen):
            parts += _section(config, where if config is root else "")
    return "\n\n".join((*parts, *_presets())) + "\n"


def _reached(config: type[BaseModel], seen: list[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """`config`, then the models its fields hold, each once over the whole page."""
    if config in seen:
        return
    seen.append(config)
    yield config
    for field in config.model_fields.values():
        for inner in _models_in(field.annotation):
            yield from _reached(inner, seen)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _section(config: type[BaseModel], where: str) -> Iterator[str]:
    yield f"## {config.__name__}"
    yield " ".join((inspect.cleandoc(config.__doc__ or ""), *([f"Given in: {where}"] if where else [])))
    lines = ["| field | type | default | |", "|---|---|---|---|"]
    for name, field in config.model_fields.items():
        signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
        limits = "".join(
            f", {sign} {getattr(rule, word):g}" for rule in field.metadata for word, sign in signs.items() if hasattr(rule, word)
        )  # fmt: skip
        words = " ".join((field.description or "").split())
        lines.append(
            f"| `{name}` | {escape(type_words(field.annotation) + limits)} | {_default(field)} | {escape(words)} |"
        )
    yield "\n".join(lines)


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        said = {name: getattr(value, name) for name in sorted(value.model_fields_set)}
        link = f"[{type(value).__name__}](#{type(value).__name__.lower()})"
        return f"{link} with {', '.join(f'`{key} = {_value(given)}`' for key, given in said.items())}" if said else link
    return "" if value is None else f"`{escape(_value(value))}`"


def _value(value: Any) -> str:
    """A value as TOML writes it; of a config what was given, and its type."""
    if isinstance(value, BaseModel):
        given = (name for name in type(value).model_fields if name in value.model_fields_set or name == "type")
        return _value({name: getattr(value, name) for name in given})
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(str(value), ensure_ascii=False)


def type_words(annotation: Any) -> str:
    """A type in plain words, with links to the configs of this page."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_words(part) for part in inner if part is not type(None))
    if hasattr(annotation, "__metadata__"):
        return type_words(inner[0])
    if origin in (list, tuple):
        kinds = dict.fromkeys(type_words(part) for part in inner if part is not Ellipsis)
        number = "" if origin is list or Ellipsis in inner else f"{len(inner)} "
        return f"{number}of {' and '.join(kinds)}" if number else f"list of {' and '.join(kinds)}"
    if origin is dict:
        return f"table of {type_words(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{choice.value}`" for choice in annotation)
    if annotation is Any:
        return "anything"
    return {int: "whole number", float: "number", str: "text", bool: "yes or no", Path: "path"}.get(annotation, str(annotation))  # fmt: skip


def _presets() -> Iterator[str]:
    """What each preset sets, beside what holds without it."""
    yield "## Presets"
    yield "Files in `swe_srl/presets/`; `--set` goes over them. Only what differs from the defaults of the same algorithm or mode is listed."
    for path in sorted(PRESETS.glob("*.toml")):
        table = read_toml(path)
        config, plain = _config_of(table, path.stem)
        comment = " ".join(
            line.lstrip("# ") for line in path.read_text().split("\n\n")[0].splitlines() if line.startswith("#")
        )
        yield f"### {path.stem}"
        yield f"{comment} For [{config.__name__}](#{config.__name__.lower()})."
        defaults = dict(_flat(plain))
        rows = [
            f"| `{key}` | `{escape(_value(value))}` | {_was(defaults.get(key))} |"
            for key, value in _flat(table)
            if key.split(".")[-1] == "type" or _value(value) != _value(defaults.get(key))
        ]
        yield "\n".join(("| setting | here | without it |", "|---|---|---|", *rows))


def _was(value: Any) -> str:
    return "" if value is None else f"`{escape(_value(value))}`"


def _config_of(table: dict[str, Any], name: str) -> tuple[type[Config], dict[str, Any]]:
    """The config that a preset is of, and its defaults with the preset's own types."""
    for key, config in (("arms", StudyConfig), ("stages", ChainConfig)):
        if key in table:
            return config, {}
    for config in (TrainConfig, *MODES.values(), DemoConfig):
        try:
            build(config, table, origin=name)
        except ConfigError:
            continue
        if config is DemoConfig:
            return config, {}
        return config, build(config, _types_only(table), origin=name).model_dump(mode="json")
    raise SystemExit(f"swe_srl/presets/{name}.toml is a preset of no config: give its config a line in ROOTS")


def _types_only(table: dict[str, Any]) -> dict[str, Any]:
    inner = {key: _types_only(value) for key, value in table.items() if isinstance(value, dict)}
    return {key: value for key, value in inner.items() if value} | ({"type": table["type"]} if "type" in table else {})


def _flat(table: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def escape(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|")
