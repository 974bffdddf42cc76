"""Run directories → Report: numbers with their denominators and intervals."""
