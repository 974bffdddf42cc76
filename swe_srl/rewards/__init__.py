"""(expert action, completion) → Reward. Pure functions; neither torch nor docker is needed."""

from swe_srl.rewards.load import RewardConfig, reward_config
from swe_srl.rewards.similarity import SimilarityConfig, similarity

__all__ = ["RewardConfig", "SimilarityConfig", "reward_config", "similarity"]
