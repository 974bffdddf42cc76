"""(expert action, rollout) → Reward."""
