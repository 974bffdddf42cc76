"""Trajectories → Steps: every command run again, compared with what the teacher saw."""
