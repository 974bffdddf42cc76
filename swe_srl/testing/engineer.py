"""A task with its gold patch + what was seen so far → the next thought and action of a careful engineer.

The engineer is a generator: it yields an action and is sent the observation. It looks for the function, reads it, edits
it by what stands there rather than by line numbers, runs the failing test again and submits. Sometimes it first tries something plausible and wrong, sees
the test fail, and takes it back: the student shall learn to go by what the test says. Same seed, same observations, same
actions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Generator, Sequence
from typing import NamedTuple

from swe_srl.schema import Command
from swe_srl.testing.edits import (
    Change,
    Fragment,
    bash,
    by_editor,
    by_python,
    by_sed,
    lines_of,
    piece_of,
    sed_substitute,
)

REPRODUCE_SHARE = 0.2
"""Of trajectories that begin with running the failing test."""
READ_TEST_SHARE = 0.1
LOOK_AROUND_SHARE = 0.05
DETOUR_SHARE = 0.3
"""Of trajectories that try a wrong edit first."""
EDIT_FORMS = {"sed": 0.85, "editor": 0.11, "python": 0.04}
NUM_VIEW_LINES = 25
"""Of a further view, and around what stands in no function."""
MAX_READ_ON = 6
"""Further views of one function."""

WRONG: tuple[tuple[str, str, str], ...] = (
    (r"<=", "<", "the comparison"), (r">=", ">", "the comparison"), (r"(?<=\s)<(?=\s)", "<=", "the comparison"),
    (r"(?<=\s)>(?=\s)", ">=", "the comparison"), (r"==", "!=", "the comparison"), (r"!=", "==", "the comparison"),
    (r"\bis not\b", "is", "the comparison"), (r"\bis(?= None)", "is not", "the comparison"), (r"\bnot in\b", "in", "the test"),
    (r"\band\b", "or", "the boolean operator"), (r"\bor\b", "and", "the boolean operator"), (r"\bif not\b", "if", "the condition"),
    (r"\bif\b(?! not)", "if not", "the condition"), (r"\bTrue\b", "False", "the constant"), (r"\bFalse\b", "True", "the constant"),
    (r"\+=", "-=", "the sign"), (r"-=", "+=", "the sign"), (r"(?<=\s)\+(?=\s)", "-", "the sign"), (r"(?<=\s)-(?=\s)", "+", "the sign"),
    (r"\[0\]", "[-1]", "the index"), (r"\[-1\]", "[0]", "the index"), (r"\b1\b", "0", "the constant"), (r"\b0\b", "1", "the constant"),
)  # fmt: skip
"""Pattern of what is suspected wrongly, what it becomes, and what it is called."""


SUBMIT = Command(tool="submit")


_QUOTES = re.compile(r'"""|\'\'\'')
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LEFT_OUT = re.compile(r"\[… \d+ characters left out …\]")
FAR = 10_000
"""Added to the numbers of lines behind a gap: how many are missing is not known."""


class Problem(NamedTuple):
    """A task as the engineer knows it."""

    task_id: str
    statement: str
    workdir: str
    changes: tuple[Change, ...]


class Action(NamedTuple):
    """What the engineer does next."""

    thought: str
    command: Command


Work = Generator[Action, str, None]


def work(candidates: Sequence[Problem], rng: random.Random) -> Work:
    """Solve the problem that `candidates` state; they share their statement, and the code that is seen tells which it is."""
    problem = candidates[0]
    run_test = test_command(problem.statement)
    yield from _look_around(run_test, rng)
    for candidate in candidates:  # where none fits, the last one is as good as another
        problem = candidate
        lines, view = yield from _read_function(problem, rng)
        if _fits(problem, lines):
            break
    wrong = wrong_edit(problem.changes[0], lines, rng) if rng.random() < DETOUR_SHARE else None
    if wrong:
        passed = yield from _detour(problem.changes[0], wrong, view, run_test, rng)
        if passed:
            return
    yield from _repair(problem, lines, view, run_test, rng)


def test_command(statement: str) -> str:
    """The command that a statement says to run the test with; the whole suite where it names none."""
    quoted = re.search(r"`((?:python -m )?pytest [^`\n]+)`", statement)
    return quoted.group(1) if quoted else "python -m pytest -q -x"


def passes(observation: str) -> bool:
    """Whether pytest's last word is that all is well."""
    plain = _COLOUR.sub("", observation)  # a project may want its colours whoever reads them
    return plain.startswith("[exit 0]") and bool(re.search(r"\b\d+ passed\b", plain))


def _look_around(run_test: str, rng: random.Random) -> Work:
    if rng.random() < LOOK_AROUND_SHARE:
        yield Action("First I look at what is in the repository.", bash("ls"))
    test = re.search(r"([\w/.-]+\.py)::(?:\w+::)*(\w+)", run_test)
    if test and rng.random() < READ_TEST_SHARE:
        said = rng.choice(["I read the failing test first.", f"I look at what {test.group(2)} expects."])
        yield Action(said, bash(f'grep -n -A 12 "def {test.group(2)}(" {test.group(1)}'))
    if rng.random() < REPRODUCE_SHARE:
        said = rng.choice(["I reproduce the problem first.", "First I run the failing test to see it fail."])
        yield Action(said, bash(run_test))


def _read_function(problem: Problem, rng: random.Random) -> Generator[Action, str, tuple[dict[int, str], Command]]:
    """Find the function and read it; returns the lines that were seen, and the view that showed the place of the bug."""
    change = problem.changes[0]
    if not change.function:
        start, stop = max(1, change.line - NUM_VIEW_LINES // 2), change.line + len(change.old) + NUM_VIEW_LINES // 2
        view = bash(f"sed -n '{start},{stop}p' {change.path}")
        seen = yield Action(f"The fault must be in {change.path}. I read it.", view)
        return shown(seen), view
    name = change.function
    if name in problem.statement:
        said = rng.choice(
            [f"The issue is about {name}. I find where it is defined.", f"I look for the definition of {name}."]
        )
    else:
        said = f"What the test uses rests on {name}. I find where it is defined."
    yield Action(said, bash(f'grep -rn "def {name}(" --include=*.py .'))
    whole = f"sed -n '{lines_of(name)}p' {change.path}"
    view = bash(whole)
    seen = yield Action(f"{name} is in {change.path}. I read it.", view)
    lines = shown(seen)
    for _ in range(MAX_READ_ON):
        if _fits(problem, lines) or max(lines, default=0) < FAR:
            break
        start = max(number for number in lines if number < FAR) + 1
        view = bash(f"{whole} | sed -n '{start},{start + NUM_VIEW_LINES - 1}p'")
        seen = yield Action("I read the part that was left out.", view)
        lines |= shown(seen, start)
    return lines, view


def shown(observation: str, first: int = 1) -> dict[int, str]:
    """The lines of an observation that were shown whole, numbered from `first`."""
    found: dict[int, str] = {}
    cut = False
    for number, line in enumerate(observation.splitlines()[1:], start=first):
        if _LEFT_OUT.fullmatch(line):
            found.pop(number - 1, None)
            first, cut = FAR, True
        elif cut:
            cut = False
        else:
            found[number + FAR if first == FAR else number] = line
    return found


def _fits(problem: Problem, lines: dict[int, str]) -> bool:
    """Whether the place of the bug was seen."""
    change = problem.changes[0]
    wanted = [*change.before[-1:], *change.old]
    seen = list(lines.values())
    return any(seen[at : at + len(wanted)] == wanted for at in range(len(seen)))


class WrongEdit(NamedTuple):
    """Something plausible that does not help."""

    text: str
    piece: Fragment
    suspect: str


def wrong_edit(change: Change, lines: dict[int, str], rng: random.Random) -> WrongEdit | None:
    """An edit of another line of the function, of the kind that a bug is mended with; None where there is nothing to suspect."""
    found = []
    for number in sorted(_code_lines(lines)):
        text = lines[number]
        # a wrong `while` may never end
        if not change.function or text in change.old or not re.match(r"\s+(?!(?:async )?def\b|while\b|[#@])\S", text):
            continue
        for pattern, becomes, suspect in WRONG:
            other = re.sub(pattern, becomes, text, count=1)
            piece = piece_of(text, other, list(lines.values())) if other != text else None
            if piece:
                found.append(WrongEdit(text.strip(), piece, suspect))
                break
    return rng.choice(found) if found else None


def _code_lines(lines: dict[int, str]) -> set[int]:
    """Numbers of the lines that are not in a docstring, of which parts may not have been seen."""
    code: set[int] = set()
    for block in _blocks(lines):
        marks = {number: len(_QUOTES.findall(lines[number])) for number in block}
        starts_at_def = bool(re.match(r"\s*(?:async )?def ", lines[block[0]]))
        inside = not starts_at_def and sum(marks.values()) % 2 == 1
        for number in block:
            if not inside and not marks[number]:
                code.add(number)
            inside = inside != (marks[number] % 2 == 1)
    return code


def _blocks(lines: dict[int, str]) -> list[list[int]]:
    """Runs of consecutive line numbers."""
    blocks: list[list[int]] = []
    for number in sorted(lines):
        if blocks and blocks[-1][-1] == number - 1:
            blocks[-1].append(number)
        else:
            blocks.append([number])
    return blocks


def _detour(
    change: Change, wrong: WrongEdit, view: Command, run_test: str, rng: random.Random
) -> Generator[Action, str, bool]:
    """Try the wrong edit, see the test fail, and take it back. Returns whether the test passed after all."""
    command = sed_substitute(change, wrong.piece)
    if command is None:
        return False
    yield Action(_suspicion(wrong.text, wrong.piece, wrong.suspect, rng), command)
    seen = yield Action(_rerun(rng), bash(run_test))
    if passes(seen):
        yield Action("The test passes now. I submit.", SUBMIT)
        return True
    yield Action("The test still fails, so that edit was wrong. I undo it.", bash(f"git checkout -- {change.path}"))
    yield Action("The edit is undone. I read the code again.", view)
    return False


def _repair(problem: Problem, lines: dict[int, str], view: Command, run_test: str, rng: random.Random) -> Work:
    """Make the right edit, run the test, submit. An edit that did not take is undone and made by the editor."""
    form = rng.choices(list(EDIT_FORMS), list(EDIT_FORMS.values()))[0]
    for attempt in (form, "editor" if form == "sed" else "sed"):
        for change in reversed(problem.changes):  # from the bottom, so that the line numbers above stay
            seen = yield _edit(change, attempt, list(lines.values()), problem.workdir, rng)
            if not seen.startswith("[exit 0]"):
                break
        else:
            seen = yield Action(_rerun(rng), bash(run_test))
            if passes(seen):
                yield Action(
                    rng.choice(["The test passes now. I submit.", "The failing test passes. The issue is fixed."]),
                    SUBMIT,
                )
                return
        paths = " ".join(sorted({change.path for change in problem.changes}))
        yield Action("That did not help. I undo the edit.", bash(f"git checkout -- {paths}"))
        yield Action("The edit is undone. I read the code again.", view)
    yield Action("I do not find the fault.", SUBMIT)


def _edit(change: Change, form: str, around: Sequence[str], workdir: str, rng: random.Random) -> Action:
    command = None
    if form == "python":
        command = by_python(change)
    if form in ("sed", "python"):
        command = command or by_sed(change, around)
    command = command or by_editor(change, workdir)
    piece = piece_of(change.old[0], change.new[0], around) if len(change.old) == len(change.new) == 1 else None
    if piece:
        return Action(_suspicion(change.old[0], piece, _suspect(change.old[0], change.new[0]), rng), command)
    if not change.new:
        thought = f"`{_brief(change.old[0])}` should not be there. I delete it."
    elif not change.old:
        behind = f" behind `{_brief(change.before[-1])}`" if change.before else ""
        thought = f"A statement is missing{behind}. I add `{_brief(change.new[0])}`."
    else:
        thought = f"`{_brief(change.old[0])}` is wrong. It should be `{_brief(change.new[0])}`."
    return Action(thought, command)


def _suspect(old: str, new: str) -> str:
    """What it is in a line that changes; the same words as for a wrong suspicion."""
    for pattern, becomes, name in WRONG:
        if re.search(pattern, old) and re.sub(pattern, becomes, old, count=1) == new:
            return name
    return "the expression"


def _suspicion(text: str, piece: Fragment, suspect: str, rng: random.Random) -> str:
    said = rng.choice(["looks wrong", "looks suspicious"])
    return f"`{_brief(text)}`: {suspect} {said}. I change `{piece.old}` to `{piece.new}`."


def _brief(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 70 else f"{text[:69]}…"


def _rerun(rng: random.Random) -> str:
    return rng.choice(["I run the failing test again.", "I check the edit with the failing test."])
