"""swe-srl: train coding agents on a teacher's replayed actions, and measure them honestly."""

__version__ = "0.1.0"
