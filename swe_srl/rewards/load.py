"""Name or table → RewardFn: every reward that swe-srl knows, in one visible place."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from swe_srl.errors import ConfigError
from swe_srl.rewards.blend import BlendConfig
from swe_srl.rewards.members import MemberConfig


def named(table: Any) -> Any:
    """A table without a `type` is the paper's reward, with some settings of its own."""
    return {"type": "similarity", **table} if isinstance(table, dict) else table


RewardConfig = Annotated[MemberConfig | BlendConfig, Field(discriminator="type"), BeforeValidator(named)]

REWARDS: dict[str, type[RewardConfig]] = {
    config.model_fields["type"].default: config for config in (*get_args(get_args(MemberConfig)[0]), BlendConfig)
}
"""Each reward's settings by its name. `effect` and `tests` need boxes, and stand where there are some: swe_srl/replay."""


def reward_config(name: str) -> RewardConfig:
    """The default settings of the reward called `name`. Raises ConfigError naming the known ones."""
    if name in ("effect", "tests"):
        raise ConfigError(
            f"the reward {name!r} runs actions in boxes, and here are none: choose one of {', '.join(sorted(REWARDS))}; "
            "`effect` is for SRL (algorithm.reward.type), and scripts/bench/calibration.py compares them all"
        )
    if name not in REWARDS:
        raise ConfigError(f"no reward {name!r}: choose one of {', '.join(sorted(REWARDS))}")
    return REWARDS[name]()
