"""Issue and the names of a repository's files → the prompt that asks which are to be edited; the answer → paths."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple

from swe_srl.benchmarks.patches import is_test_file
from swe_srl.dialogue import Message, shorten
from swe_srl.errors import SandboxError
from swe_srl.evaluation.editing import Prompt
from swe_srl.evaluation.edits import plain_path, without_thought
from swe_srl.evaluation.sources import Count
from swe_srl.runtime.base import Sandbox
from swe_srl.schema import Task

LIST = "git -c safe.directory='*' -c core.quotePath=false ls-files"
"""What is run in the box to see its files."""

SYSTEM = """\
You are a software engineer. You are shown an issue and the names of the files of the repository it is about, and you say which files have to be edited.
Write your reasoning in <think> </think>, then at most {most} paths, the most important first, one a line in a code block:
```
path/of/the/file.py
```"""

ISSUE = """\
The issue:

{statement}

The files:

{listing}

Which of them have to be edited to mend this?"""

_WORD = re.compile(r"[a-z][a-z0-9]{2,}")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])?\s*")
_TEST_FOLDERS = frozenset({"test", "tests", "testing"})


class Listing(NamedTuple):
    """Names of files as a prompt shows them."""

    text: str
    num_tokens_cut: int = 0


def list_files(box: Sandbox, suffixes: Sequence[str], *, timeout_s: float = 60.0) -> list[str]:
    """The files in git that can be edited: those of these suffixes that are no tests. Raises SandboxError where git does not answer."""
    result = box.run(LIST, timeout_s=timeout_s)
    if result.exit_code != 0:
        raise SandboxError(f"git lists no files in {box.workdir} of the box: {result.output.strip()[:300]}")
    return [path for path in result.output.splitlines() if path.endswith(tuple(suffixes)) and not _is_test(path)]


def locate_prompt(
    task: Task, paths: Sequence[str], *, most: int, room: int, count: Count, max_statement_chars: int
) -> Prompt | None:
    """The prompt that asks for at most `most` of the paths, in at most `room` tokens; None where no path fits."""
    system, statement = SYSTEM.format(most=most), shorten(task.problem_statement.strip(), max_statement_chars)
    frame = count(system) + count(ISSUE.format(statement=statement, listing=""))
    listing = show_listing(paths, statement, room - frame, count)
    if not listing.text:
        return None
    question = ISSUE.format(statement=statement, listing=listing.text)
    return Prompt(
        [Message(role="system", content=system), Message(role="user", content=question)], listing.num_tokens_cut
    )


def show_listing(paths: Sequence[str], statement: str, budget: int, count: Count) -> Listing:
    """The paths, one a line, in their order. Where they do not all fit, those stay that share most words with the issue,
    then the shortest; a last line says how many are missing.
    """
    whole = "\n".join(paths)
    size = count(whole)
    if size <= budget:
        return Listing(whole)
    said = set(_WORD.findall(statement.lower()))
    ranked = sorted(paths, key=lambda path: (-len(said & set(_WORD.findall(path.lower()))), len(path), path))

    def text(kept: int) -> str:
        shown = set(ranked[:kept])
        return "\n".join([*(path for path in paths if path in shown), f"[… {len(paths) - kept} files left out …]"])

    low, high = 0, len(paths) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(text(middle)) <= budget else (low, middle - 1)
    return Listing(text(low), max(0, size - count(text(low)))) if low else Listing("", size)


def named_files(answer: str, known: Sequence[str], *, most: int, workdir: str) -> list[str]:
    """The first `most` of the known files that an answer names, each once, in its order; those in code blocks where it has one."""
    _, rest = without_thought(answer)
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", rest, re.DOTALL | re.MULTILINE)
    lines = "\n".join(fenced).splitlines() if fenced else rest.splitlines()
    paths = (plain_path(_BULLET.sub("", line), workdir) for line in lines)
    files = set(known)
    return list(dict.fromkeys(path for path in paths if path in files))[:most]


def _is_test(path: str) -> bool:
    folders = posixpath.dirname(path).split("/")
    return is_test_file(path) or not _TEST_FOLDERS.isdisjoint(folders)
