"""Patched tree → a tree whose tests, runner settings and Python hooks are those of the base commit again."""

from __future__ import annotations

import configparser
import shlex
import tomllib
from collections.abc import Sequence
from typing import Any

from swe_srl.errors import SandboxError
from swe_srl.grading.touched import SHARED_FILES, Touched
from swe_srl.runtime.base import Sandbox

_WORDS = {
    "test": "edits tests",
    "runner settings": "edits the test runner's settings",
    "python hook": "adds code that Python runs at its start",
    "shadow": "adds a module in the place of another",
    "git": "reaches into .git",
}


def restore(touched: Sequence[Touched], sandbox: Sandbox, *, timeout_s: float) -> list[str]:
    """Set what the grader owns back to HEAD, and take away what HEAD does not have; what was done, in words.

    A module of a name like `pytest` that the project itself brings stays as patched, and so does a file of many uses whose
    section for the test runner is as it was. Raises SandboxError when the tree cannot be restored.
    """
    touched = sorted(touched, key=lambda item: item.path.count("/"))
    at_base = _at_base([item.path for item in touched], sandbox, timeout_s)
    wanted = [item for item in touched if not _is_honest(item, item.path in at_base, sandbox, timeout_s)]
    script = "\n".join(
        f"rm -rf -- {shlex.quote(item.path)}"
        + (f" && git checkout -q HEAD -- {shlex.quote(item.path)}" if item.path in at_base else "")
        + " || exit 9"
        for item in wanted
        if item.kind != "git"
    )
    if script and _in_repository(sandbox, script, timeout_s)[0] != 0:
        raise SandboxError(f"the tests of {sandbox.workdir} cannot be restored: open another box")
    return [f"{_WORDS[item.kind]}: {item.path}" for item in wanted]


def _is_honest(item: Touched, is_at_base: bool, sandbox: Sandbox, timeout_s: float) -> bool:
    if item.kind == "shadow":
        return is_at_base
    section = SHARED_FILES.get(item.path.rpartition("/")[2])
    if item.kind != "runner settings" or section is None:
        return False
    quoted = shlex.quote(item.path)
    before = _in_repository(sandbox, f"git show HEAD:{quoted}", timeout_s)[1] if is_at_base else ""
    after = _in_repository(sandbox, f"cat -- {quoted}", timeout_s)
    return after[0] == 0 and _section(item.path, before, section) == _section(item.path, after[1], section)


def _section(path: str, text: str, name: str) -> Any:
    """What the runner reads of a file of settings; a file that cannot be read is like no other."""
    try:
        if path.endswith(".toml"):
            found: Any = tomllib.loads(text)
            for part in name.split("."):
                found = found.get(part, {})
            return found
        parser = configparser.RawConfigParser()
        parser.read_string(text)
        return dict(parser[name]) if parser.has_section(name) else {}
    except (configparser.Error, tomllib.TOMLDecodeError, AttributeError):
        return object()


def _at_base(paths: Sequence[str], sandbox: Sandbox, timeout_s: float) -> set[str]:
    lines = "\n".join(
        f"git cat-file -e HEAD:{shlex.quote(path)} 2>/dev/null && echo {n}" for n, path in enumerate(paths)
    )
    _, output = _in_repository(sandbox, f"{lines}\ntrue", timeout_s)
    return {paths[int(line)] for line in output.split() if line.isdigit() and int(line) < len(paths)}


def _in_repository(sandbox: Sandbox, script: str, timeout_s: float) -> tuple[int | None, str]:
    result = sandbox.run(f"( cd {shlex.quote(sandbox.workdir)} || exit 1\n{script}\n)", timeout_s=timeout_s)
    return result.exit_code, result.output
