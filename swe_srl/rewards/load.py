"""Name or table → RewardFn: every reward that swe-srl knows, in one visible place."""

from __future__ import annotations

from swe_srl.errors import ConfigError
from swe_srl.rewards.similarity import SimilarityConfig

# The second variant makes this a union: Annotated[SimilarityConfig | ..., Field(discriminator="type")].
RewardConfig = SimilarityConfig

REWARDS = {"similarity": SimilarityConfig}


def reward_config(name: str) -> RewardConfig:
    """The default settings of the reward called `name`. Raises ConfigError naming the known ones."""
    if name not in REWARDS:
        raise ConfigError(f"no reward {name!r}: choose one of {', '.join(sorted(REWARDS))}")
    return REWARDS[name]()
