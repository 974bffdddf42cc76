"""Run a Command in a box."""

from __future__ import annotations

from swe_srl.runtime.base import CommandResult, Sandbox, SandboxConfig
from swe_srl.runtime.confinement import Limits
from swe_srl.runtime.open import open_sandbox

__all__ = ["CommandResult", "Limits", "Sandbox", "SandboxConfig", "open_sandbox"]
