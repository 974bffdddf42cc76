"""Prediction and hidden answer → Verdict, in a clean box, by SWE-bench's own rules."""
