"""Public fakes for tests, and `oracle`, the built-in teacher that knows the answers."""

from swe_srl.testing.fakes import FakeSandbox, ScriptedPolicy, completion

__all__ = ["FakeSandbox", "ScriptedPolicy", "completion"]
