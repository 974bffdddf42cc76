"""Policy → Predictions in whole episodes, and Policy → agreement with a teacher on single steps."""
