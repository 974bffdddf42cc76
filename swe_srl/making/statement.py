"""What a failing test prints → a problem statement: the symptom as a user meets it, and nothing of the place of the bug."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Set as AbstractSet
from typing import NamedTuple

MAX_LENGTH = 900
MAX_ERROR_LINES = 6
MAX_CODE_LINES = 8
MAX_LINE = 110
NOISE = re.compile(r"^E\s*$|^E\s+\?|^E\s+Use -v|^E\s+\+\s+(?:where|and)\s+<")
"""Lines of pytest's explanation that explain nothing: blank ones, marks under a diff, where a function object came from."""
ENTRY = re.compile(r"^(?P<path>\S+\.py):(?P<line>\d+): in \S+")


class Failure(NamedTuple):
    """The part of a traceback that a statement may show: what the test asked, and what it got."""

    code: str
    errors: tuple[str, ...]


def read_failure(block: str, test_file: str) -> Failure | None:
    """The last statement of the test file in a `--tb=short` traceback, and the error.

    Lines of the package's own source are not taken: one of them is the bug. None when the test file is not in the traceback.
    """
    code: list[str] = []
    errors: list[str] = []
    in_test = seen = False
    for line in block.splitlines():
        entry = ENTRY.match(line)
        if entry:
            in_test = entry["path"] == test_file
            if in_test:
                code, seen = [], True
        elif line.startswith("E "):
            if not NOISE.match(line):
                errors.append(_stable(line[1:]).rstrip())
        elif in_test and line.startswith("    ") and line.strip(" ^~"):
            code.append(line)
    if not seen or not errors:
        return None
    return Failure(
        textwrap.dedent("\n".join(_clip(code, MAX_CODE_LINES))), tuple(_clip(_dedent(errors), MAX_ERROR_LINES))
    )


def statement(test: str, failure: Failure, functions: AbstractSet[str], num_failing: int) -> str:
    """The problem statement: at most MAX_LENGTH characters, the last line says how to run the test.

    Args:
        test: id of the failing test that is shown.
        failure: what it shows.
        functions: names of the project's functions; those that the failing code calls are in the title.
        num_failing: how many tests fail.
    """
    subject = _subject(failure.code, functions) or f"`{test.rpartition('::')[2]}`"
    title = f"{subject} {_symptom(failure)}"
    others = (
        f" and {num_failing - 1} more {'test' if num_failing == 2 else 'tests'} fail" if num_failing > 1 else " fails"
    )
    head = f"{title}\n\n`{test}`{others}:\n\n"
    tail = f"\n\nRun it with: `python -m pytest -q {_quoted(test)}`\n"
    body = textwrap.indent("\n".join([*failure.code.splitlines(), *(f"E {line}" for line in failure.errors)]), "    ")
    room = MAX_LENGTH - len(head) - len(tail)
    while len(body) > room and "\n" in body:
        body = body.rpartition("\n")[0]
    return head + body[: max(room, 0)] + tail


def called_functions(code: str, functions: AbstractSet[str]) -> list[str]:
    """Those of `functions` that a piece of code names, in the order in which it does."""
    words = re.findall(r"[A-Za-z_]\w*", _without_strings(code))
    return [name for name in dict.fromkeys(words) if name in functions]


def _subject(code: str, functions: AbstractSet[str]) -> str:
    names = called_functions(code, functions)[:3]
    return (
        " with ".join((f"`{names[0]}`", ", ".join(f"`{name}`" for name in names[1:])))
        if len(names) > 1
        else "".join(f"`{name}`" for name in names)
    )


def _symptom(failure: Failure) -> str:
    first = failure.errors[0].strip()
    if "DID NOT RAISE" in " ".join(failure.errors):
        return "does not raise the expected error"
    kind = re.match(r"(?:[\w.]+\.)?(\w+(?:Error|Exception|Exit|Iteration|Warning))\b", first)
    if kind and kind.group(1) != "AssertionError":
        return f"raises {kind.group(1)}"
    return "gives a wrong result"


def _without_strings(code: str) -> str:
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return re.sub(r"'[^']*'|\"[^\"]*\"", "", code)
    return " ".join(
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    )


def _stable(line: str) -> str:
    """A line without what differs from run to run."""
    return re.sub(r"\b0x[0-9a-f]{6,}", "0x…", line)


def _clip(lines: list[str], most: int) -> list[str]:
    short = [line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 1]}…" for line in lines]
    return short if len(short) <= most else [*short[: most - 1], "…"]


def _dedent(errors: list[str]) -> list[str]:
    return textwrap.dedent("\n".join(errors)).splitlines()


def _quoted(test: str) -> str:
    return test if re.fullmatch(r"[\w./:-]+", test) else f'"{test}"'
