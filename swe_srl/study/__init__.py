"""A controlled comparison of ways to train: arms and seeds → models, each measured alike → one table."""
