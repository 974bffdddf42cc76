"""A model's answer → SEARCH/REPLACE edits → files after them. The blocks and the rules are those of Agentless and SWE-RL:

```
### path/of/file.py
<<<<<<< SEARCH
lines of the file
=======
lines in their place
>>>>>>> REPLACE
```
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import NamedTuple

START, MIDDLE, END = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"


class Edit(NamedTuple):
    """One block."""

    path: str
    search: tuple[str, ...]
    """Lines, as `replace`."""
    replace: tuple[str, ...]


class Parsed(NamedTuple):
    """An answer taken apart; `problem` says why there is no edit."""

    thought: str
    edits: tuple[Edit, ...] = ()
    problem: str = ""


class Edited(NamedTuple):
    """Files after an answer's edits; `problem` says why they do not fit."""

    files: Mapping[str, str]
    """Path → text, of those that differ from before."""
    problem: str = ""


def without_thought(answer: str) -> tuple[str, str]:
    """(thought, the rest); a model that does not think says all at once, one that does not end its thought has said nothing."""
    if not answer.lstrip().startswith("<think>"):
        return "", answer
    thought, _, rest = answer.lstrip().removeprefix("<think>").partition("</think>")
    return thought.strip(), rest


def plain_path(text: str, workdir: str = "/testbed") -> str:
    """A path as git lists it, from how a model may write it: in quotes, from the root of the box, or with `./` before it."""
    text = text.strip().strip("`'\"*").strip().removeprefix(workdir.rstrip("/") + "/")
    return posixpath.normpath(text) if text else ""


def parse_edits(answer: str, workdir: str = "/testbed") -> Parsed:
    """Every block of an answer, in its order. A block without a path above it, or without an end, makes the answer malformed."""
    # half a character, which no file can hold, becomes a question mark
    thought, rest = without_thought(answer.encode("utf-8", "replace").decode())
    edits: list[Edit] = []
    path = ""
    block: dict[str, list[str]] | None = None
    part = ""
    for line in rest.splitlines():
        mark = line.rstrip()
        if block is None:
            if mark.startswith("### "):
                path = plain_path(mark[4:], workdir)
            elif mark == START:
                if not path:
                    return Parsed(thought, problem="a block has no `### path` above it")
                block, part = {"search": [], "replace": []}, "search"
        elif mark == MIDDLE and part == "search":
            part = "replace"
        elif mark == END and part == "replace":
            edits.append(Edit(path, tuple(block["search"]), tuple(block["replace"])))
            block = None
        else:
            block[part].append(line)
    if block is not None:
        return Parsed(thought, problem=f"a block has no {END if part == 'replace' else MIDDLE}")
    if not edits:
        return Parsed(thought, problem=f"no {START} block")
    return Parsed(thought, tuple(edits))


def apply_edits(edits: Sequence[Edit], files: Mapping[str, str]) -> Edited:
    """All edits, one after the other, or none.

    SEARCH has to stand in its file as whole lines. As in SWE-RL's published code, all places where it stands are replaced,
    and files that were not shown cannot be edited.
    """
    after = {path: text.split("\n") for path, text in files.items()}
    for number, edit in enumerate(edits, start=1):
        if edit.path not in after:
            return Edited({}, f"edit {number}: {edit.path} is no file that was shown")
        if not any(line.strip() for line in edit.search):
            return Edited({}, f"edit {number} of {edit.path}: SEARCH is empty")
        lines = _replaced(after[edit.path], edit)
        if lines is None:
            return Edited({}, f"edit {number}: SEARCH does not stand in {edit.path}")
        after[edit.path] = lines
    texts = {path: "\n".join(lines) for path, lines in after.items()}
    return Edited({path: text for path, text in texts.items() if text != files[path]})


def _replaced(lines: Sequence[str], edit: Edit) -> list[str] | None:
    """The lines of a file after one edit; None where SEARCH does not stand in it."""
    search, found = list(edit.search), False
    after: list[str] = []
    start = 0
    while start < len(lines):
        if lines[start] == search[0] and list(lines[start : start + len(search)]) == search:
            found = True
            after += edit.replace
            start += len(search)
        else:
            after.append(lines[start])
            start += 1
    return after if found else None
