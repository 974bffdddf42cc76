"""A patch and a box → a patched tree, or the reason why there is none; swebench 5's chain of commands."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from swe_srl.runtime.base import Sandbox

PATCH_FILE = "/tmp/patch.diff"  # noqa: S108  a path inside the box, the one SWE-bench uses

APPLY_COMMANDS = (
    "git apply --verbose",
    "git apply --verbose --3way",
    "git apply --verbose --reject",
    "patch --batch --forward --fuzz=5 -p1 -i",
)
"""Tried in this order; from swebench/harness/run_evaluation.py (5.0.2)."""

PRISTINE = "git checkout -- . ; git clean -fd"
"""A failed attempt leaves partial state behind, which would make every later one fail."""


class Applied(NamedTuple):
    """Whether a patch is in the tree, and what the commands said."""

    ok: bool
    log: str


def apply_patch(patch: str, sandbox: Sandbox, *, timeout_s: float) -> Applied:
    """Apply `patch` to the repository in the box. A patch that does not apply is a value, not an exception.

    Each command is a shell of its own in `workdir`, so that the chain does not depend on what ran before.
    """
    sandbox.write_file(PATCH_FILE, patch.encode("utf-8", "surrogateescape"))
    lines: list[str] = []
    for attempt, command in enumerate(APPLY_COMMANDS):
        if attempt:
            _in_repository(sandbox, PRISTINE, timeout_s)
        ok, output = _in_repository(sandbox, f"{command} {PATCH_FILE}", timeout_s)
        if ok:
            lines.append(f">>>>> Applied Patch:\n{output}")
            return Applied(ok=True, log="\n".join(lines))
        lines.append(f"Failed to apply patch to container: {command}")
    # the chain can leave the patch fully applied although each command exited with an error
    reversible, _ = _in_repository(sandbox, f"git apply --check --reverse {PATCH_FILE}", timeout_s)
    if reversible:
        lines.append(">>>>> Applied Patch: verified already applied")
    else:
        lines.append(f">>>>> Patch Apply Failed:\n{output}")
    return Applied(ok=reversible, log="\n".join(lines))


def _in_repository(sandbox: Sandbox, command: str, timeout_s: float) -> tuple[bool, str]:
    """(exit code is 0, output) of `command` run in the repository."""
    result = sandbox.run(f"( cd {shlex.quote(sandbox.workdir)} || exit 1; {command} )", timeout_s=timeout_s)
    return result.exit_code == 0, result.output
