"""The name of an evaluation mode → its config: the one place where modes are listed."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Field

from swe_srl.errors import ConfigError
from swe_srl.evaluation.agent import AgentModeConfig
from swe_srl.evaluation.agentless import AgentlessModeConfig
from swe_srl.evaluation.oracle import OracleModeConfig
from swe_srl.settings import build

EvaluationMode = Annotated[
    AgentModeConfig
    | OracleModeConfig
    | AgentlessModeConfig,
    Field(discriminator="type"),
]  # fmt: skip
"""A config builds its mode; a new mode is one more file and one more line here."""

MODES: dict[str, type[EvaluationMode]] = {
    config.model_fields["type"].default: config for config in get_args(get_args(EvaluationMode)[0])
}


def mode_config(name: str, settings: dict[str, Any] | None = None, *, origin: str = "settings") -> EvaluationMode:
    """The config of the mode of that name; a `type` in `settings`, which came from `origin`, is another way to name it.

    Raises ConfigError for a mode that does not exist and for a setting that the mode does not have.
    """
    name = (settings or {}).get("type", name)
    if name not in MODES:
        raise ConfigError(f"no evaluation mode {name!r}: choose one of {', '.join(MODES)}")
    return build(MODES[name], {**(settings or {}), "type": name}, origin=origin)
