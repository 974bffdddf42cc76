"""Run a Command in a box."""
