"""The name of an evaluation mode → its config: the one place where modes are listed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from swe_srl.agent import AgentLimits
from swe_srl.dialogue import ContextConfig
from swe_srl.errors import ConfigError
from swe_srl.policy.base import Sampling
from swe_srl.runtime.base import SandboxConfig
from swe_srl.settings import Config, build


class AgentModeConfig(Config):
    """The model acts in a box, turn by turn, until it submits."""

    type: Literal["agent"] = "agent"
    context: ContextConfig = ContextConfig()
    limits: AgentLimits = AgentLimits()
    sampling: Sampling = Sampling()
    sandbox: SandboxConfig = SandboxConfig()
    max_parallel: int = Field(8, ge=1)
    """Episodes at the same time; each round asks the model for all their next actions at once."""


EvaluationMode = AgentModeConfig
"""A union with one member so far; a new mode is one more class here, and one more branch in `predict`."""

MODES: dict[str, type[EvaluationMode]] = {"agent": AgentModeConfig}


def mode_config(name: str, settings: dict[str, Any] | None = None, *, origin: str = "settings") -> EvaluationMode:
    """The config of the mode of that name; a `type` in `settings`, which came from `origin`, is another way to name it.

    Raises ConfigError for a mode that does not exist and for a setting that the mode does not have.
    """
    name = (settings or {}).get("type", name)
    if name not in MODES:
        known = ", ".join(MODES)
        later = " (it is planned)" if name in ("oracle", "agentless") else ""
        raise ConfigError(f"no evaluation mode {name!r}{later}: only {known} exists so far")
    return build(MODES[name], {**(settings or {}), "type": name}, origin=origin)
