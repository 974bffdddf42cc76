"""Gold patch → Changes; Change → the command that makes it, as a person at a shell would write it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from swe_srl.schema import Command

TOKEN = re.compile(r"\w+|\s+|[<>=!+\-*/%]=|//|\*\*|.")
_HUNK = re.compile(r"^@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@ ?(.*)$")
_DEF = re.compile(r"(?:async )?def (\w+)")
"""A function at the top of a module."""
MIN_PIECE = 7
"""Characters that are replaced, where the line has as many."""


class Change(NamedTuple):
    """Neighbouring lines that become others."""

    path: str
    line: int
    """Number of the first line of `old` in the file as it is; where `old` is empty, of the line after which `new` comes."""
    old: tuple[str, ...]
    new: tuple[str, ...]
    before: tuple[str, ...]
    """The unchanged lines just above, as far as they are known."""
    after: tuple[str, ...]
    """The unchanged lines just below."""
    function: str
    """Name of the top-level function around it, as far as it is known."""


class Fragment(NamedTuple):
    """A piece of a line that becomes another; its first occurrence is meant."""

    old: str
    new: str


def changes_of(patch: str) -> list[Change]:
    """Every change of a patch, one per hunk, in its order."""
    found: list[Change] = []
    path, lines = "", patch.splitlines()
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if line.startswith("+++ "):
            path = line[4:].split("\t")[0].removeprefix("b/")
        elif match := _HUNK.match(line):
            start = position
            while (
                position < len(lines)
                and lines[position][:1] in (" ", "+", "-", "\\", "")
                and not lines[position].startswith("--- a/")
            ):
                position += 1
            change = _change_of_hunk(path, int(match.group(1)), match.group(2), lines[start:position])
            found += [change] if change else []
    return found


def _change_of_hunk(path: str, number: int, heading: str, lines: list[str]) -> Change | None:
    """What the hunk that begins at line `number` of the old file changes, from its first changed line to its last."""
    lines = [line for line in lines if not line.startswith("\\")]
    changed = [position for position, line in enumerate(lines) if line[:1] in ("+", "-")]
    if not changed:
        return None
    above, block, below = lines[: changed[0]], lines[changed[0] : changed[-1] + 1], lines[changed[-1] + 1 :]
    old = tuple(line[1:] for line in block if not line.startswith("+"))
    new = tuple(line[1:] for line in block if not line.startswith("-"))
    names = [match.group(1) for match in map(_DEF.match, [heading, *(line[1:] for line in above), *old]) if match]
    first = number + len(above) if old else number + len(above) - 1
    return Change(
        path,
        first,
        old,
        new,
        tuple(line[1:] for line in above),
        tuple(line[1:] for line in below),
        names[-1] if names else "",
    )


def fragments(old: str, new: str) -> list[Fragment]:
    """Pieces of `old` whose replacement gives exactly `new`, the shortest first; they begin and end with whole tokens.

    A little more is taken where that closes all brackets: `f(x)` rather than `f(x`.
    """
    found = list(_fragments(old, new))
    if not found:
        return []
    longest = len(found[0].old) + 16
    return sorted(
        found, key=lambda piece: not (_balanced(piece.old) and _balanced(piece.new) and len(piece.old) <= longest)
    )


def _balanced(text: str) -> bool:
    return all(text.count(left) == text.count(right) for left, right in ("()", "[]", "{}"))


def _fragments(old: str, new: str) -> Iterator[Fragment]:
    olds, news = TOKEN.findall(old), TOKEN.findall(new)
    head = 0
    while head < min(len(olds), len(news)) and olds[head] == news[head]:
        head += 1
    tail = 0
    while tail < min(len(olds), len(news)) - head and olds[-1 - tail] == news[-1 - tail]:
        tail += 1
    for width in range(len(olds) + 1):
        for left in range(width + 1):
            start, end = max(0, head - left), max(0, tail - (width - left))
            piece = Fragment("".join(olds[start : len(olds) - end]), "".join(news[start : len(news) - end]))
            if not piece.old.strip() or piece.old != piece.old.strip() or not piece.new.strip():
                continue
            if old.replace(piece.old, piece.new, 1) == new:
                yield piece


def piece_of(old: str, new: str, around: Sequence[str]) -> Fragment | None:
    """A piece of the line `old` whose replacement gives `new`, and that stands in no other line of `around`.

    A few words rather than one sign: that is easier to read, and to copy.
    """
    for piece in sorted(fragments(old, new), key=_awkward):
        first = _pattern(piece.old).search(old)
        if first and first.group() == piece.old and _is_alone(piece.old, around) and _sed(piece):
            return piece
    return None


def _pattern(text: str) -> re.Pattern[str]:
    """What `_sed` looks for: there a point is any character."""
    return re.compile(re.escape(text).replace(r"\.", "."))


def _is_alone(text: str, around: Sequence[str]) -> bool:
    pattern = _pattern(text)
    return sum(bool(pattern.search(line)) for line in around) <= 1


def _awkward(piece: Fragment) -> tuple[bool, bool, bool]:
    """What speaks against a piece, the weightiest first: too short, a bracket left open, an end that is no word's."""
    whole_words = all(re.fullmatch(r"\w.*[\w)\]}]", text) for text in piece)
    return len(piece.old) < MIN_PIECE, not (_balanced(piece.old) and _balanced(piece.new)), not whole_words


def sed_substitute(change: Change, piece: Fragment) -> Command | None:
    """`sed -i '/^def f(/,/^def /s/old/new/' path`; None where the piece holds what sed or the shell would take differently."""
    script = _sed(piece)
    return bash(f"sed -i '{lines_of(change.function)}{script}' {change.path}") if script else None


def lines_of(function: str) -> str:
    """A top-level function as sed's range: from its `def` to the next one."""
    return f"/^def {function}(/,/^def /"


def _sed(piece: Fragment, *, behind: bool = False) -> str:
    """The `s` command for `piece`; empty where quoting would get in the way. `behind`: the new text comes on a line behind the old."""
    both = piece.old + piece.new
    mark = next((mark for mark in "/|#" if mark not in both), "")
    if not mark or "'" in both or "\n" in both:
        return ""
    pattern = re.sub(r"([\\*\[\]^$])", r"\\\1", piece.old)
    replacement = re.sub(r"([\\&])", r"\\\1", piece.new)
    return f"s{mark}{pattern}{mark}{'&' + chr(92) + 'n' if behind else ''}{replacement}{mark}"


def by_sed(change: Change, around: Sequence[str]) -> Command | None:
    """The change as one sed command inside its function, of which `around` was seen; None where it would not be a short one."""
    if not change.function or len(change.new) != 1:
        return None
    if len(change.old) == 1:
        piece = piece_of(change.old[0], change.new[0], around)
        return sed_substitute(change, piece) if piece else None
    if change.old or not change.before or not _is_alone(change.before[-1].strip(), around):
        return None
    script = _sed(Fragment(change.before[-1].strip(), change.new[0]), behind=True)
    return bash(f"sed -i '{lines_of(change.function)}{script}' {change.path}") if script else None


def by_python(change: Change) -> Command | None:
    """The change as a Python one-liner; None where quoting would get in the way, or it does not replace one line."""
    if len(change.old) != 1 or len(change.new) != 1:
        return None
    piece = next(iter(fragments(change.old[0], change.new[0])), None)
    if piece is None or re.search(r"[\"'\\$`!]", piece.old + piece.new):
        return None
    at = f"t[{change.line - 1}]"
    edit = f"{at} = {at}.replace('{piece.old}', '{piece.new}', 1)"
    code = f"p = '{change.path}'; t = open(p).readlines(); {edit}; open(p, 'w').writelines(t)"
    return bash(f'python -c "{code}"')


def by_editor(change: Change, workdir: str) -> Command:
    """The change as a call of the editor."""
    path = f"{workdir}/{change.path}"
    if not change.old:
        arguments = {
            "command": "insert",
            "path": path,
            "insert_line": str(change.line),
            "new_str": "\n".join(change.new),
        }
        return Command(tool="str_replace_editor", arguments=arguments)
    old, new = list(change.old), list(change.new)
    if change.before and len(old) == 1:  # one line alone is seldom unique
        old, new = [change.before[-1], *old], [change.before[-1], *new]
    arguments = {"command": "str_replace", "path": path, "old_str": "\n".join(old), "new_str": "\n".join(new)}
    return Command(tool="str_replace_editor", arguments=arguments)


def bash(command: str) -> Command:
    """A shell command."""
    return Command(tool="bash", arguments={"command": command})
