"""A task with its gold patch + what was seen so far → the next thought and action of a careful engineer.

The engineer is a generator: it yields an action and is sent the observation. It looks for the function, reads it with
line numbers, edits, runs the failing test again and submits. Sometimes it first tries something plausible and wrong, sees
the test fail, and takes it back: the student shall learn to go by what the test says. Same seed, same observations, same
actions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Generator, Sequence
from typing import NamedTuple

from swe_srl.schema import Command
from swe_srl.testing.edits import Change, Fragment, bash, by_editor, by_python, by_sed, fragments, sed_substitute

REPRODUCE_SHARE = 0.2
"""Of trajectories that begin with running the failing test."""
READ_TEST_SHARE = 0.1
LOOK_AROUND_SHARE = 0.05
DETOUR_SHARE = 0.3
"""Of trajectories that try a wrong edit first."""
EDIT_FORMS = {"sed": 0.85, "editor": 0.11, "python": 0.04}
NUM_VIEW_LINES = 25
MAX_READ_ON = 6
"""Further views of one function."""

WRONG: tuple[tuple[str, str, str], ...] = (
    (r"<=", "<", "the comparison"), (r">=", ">", "the comparison"), (r"(?<=\s)<(?=\s)", "<=", "the comparison"),
    (r"(?<=\s)>(?=\s)", ">=", "the comparison"), (r"==", "!=", "the comparison"), (r"!=", "==", "the comparison"),
    (r"\bis not\b", "is", "the comparison"), (r"\bis(?= None)", "is not", "the comparison"), (r"\bnot in\b", "in", "the test"),
    (r"\band\b", "or", "the boolean operator"), (r"\bor\b", "and", "the boolean operator"), (r"\bif not\b", "if", "the condition"),
    (r"\bif\b(?! not)", "if not", "the condition"), (r"\bTrue\b", "False", "the constant"), (r"\bFalse\b", "True", "the constant"),
    (r"\+=", "-=", "the sign"), (r"(?<=\s)\+(?=\s)", "-", "the sign"), (r"(?<=\s)-(?=\s)", "+", "the sign"),
    (r"\[0\]", "[-1]", "the index"), (r"\[-1\]", "[0]", "the index"), (r"\b1\b", "0", "the constant"), (r"\b0\b", "1", "the constant"),
)  # fmt: skip
"""Pattern of what is suspected wrongly, what it becomes, and what it is called."""


SUBMIT = Command(tool="submit")


_QUOTES = re.compile(r'"""|\'\'\'')


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
        passed = yield from _detour(problem.changes[0].path, wrong, view, run_test, rng)
        if passed:
            return
    yield from _repair(problem, view, run_test, rng)


def test_command(statement: str) -> str:
    """The command that a statement says to run the test with; the whole suite where it names none."""
    quoted = re.search(r"`((?:python -m )?pytest [^`\n]+)`", statement)
    return quoted.group(1) if quoted else "python -m pytest -q -x"


def passes(observation: str) -> bool:
    """Whether pytest's last word is that all is well."""
    return observation.startswith("[exit 0]") and bool(re.search(r"\b\d+ passed\b", observation))


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
    """Find the function and read it with line numbers; returns its lines, and the view that showed the place of the bug."""
    change = problem.changes[0]
    last = change.line + max(0, len(change.old) - 1)
    if not change.function:
        view = bash(f"cat -n {change.path} | sed -n '{max(1, change.line - 10)},{last + 10}p'")
        seen = yield Action(f"The fault must be in {change.path}. I read it.", view)
        return numbered(seen), view
    name = change.function
    if name in problem.statement:
        said = rng.choice(
            [f"The issue is about {name}. I find where it is defined.", f"I look for the definition of {name}."]
        )
    else:
        said = f"What the test uses rests on {name}. I find where it is defined."
    places = yield Action(said, bash(f'grep -rn "def {name}(" --include=*.py .'))
    look = f'grep -n -A {NUM_VIEW_LINES} "def {name}(" {change.path}'
    if (
        len(re.findall(rf"^(?:\./)?{re.escape(change.path)}:", places, re.MULTILINE)) > 1
    ):  # overloads; the last one has the body
        look += f" | tail -n {NUM_VIEW_LINES + 1}"
    view = bash(look)
    seen = yield Action(f"{name} is in {change.path}. I read it with line numbers.", view)
    lines = numbered(seen)
    for _ in range(MAX_READ_ON):
        missing = next((number for number in range(change.line, last + 1) if number not in lines), None)
        if missing is None:
            break
        start = max(lines, default=0) + 1
        if not start <= missing < start + MAX_READ_ON * NUM_VIEW_LINES:  # the middle of a long view was left out
            start = max(1, missing - 3)
        view = bash(f"cat -n {change.path} | sed -n '{start},{start + NUM_VIEW_LINES - 1}p'")
        seen = yield Action(rng.choice(["I read on.", f"The function goes on. I read from line {start}."]), view)
        lines |= numbered(seen)
    return _body(lines, name), view


def numbered(observation: str) -> dict[int, str]:
    """The lines that `grep -n` or `cat -n` shows, by number."""
    found: dict[int, str] = {}
    for line in observation.splitlines():
        match = re.match(r"\s*(\d+)(?:[-:]|\t)(.*)$", line)
        if match:
            found[int(match.group(1))] = match.group(2)
    return found


def _body(lines: dict[int, str], name: str) -> dict[int, str]:
    """The lines of one function, as far as they were seen."""
    numbers = sorted(lines)
    start = next(
        (number for number in reversed(numbers) if re.match(rf"(?:async )?def {re.escape(name)}\(", lines[number])),
        None,
    )
    if start is None:
        return lines
    header = True
    body = {}
    for number in (number for number in numbers if number >= start):
        text = lines[number]
        if not header and text.strip() and not text[0].isspace() and not text.startswith(")"):
            break
        header = header and not text.rstrip().endswith(":")
        body[number] = text
    return body


def _fits(problem: Problem, lines: dict[int, str]) -> bool:
    change = problem.changes[0]
    if change.old:
        return all(lines.get(change.line + offset) == text for offset, text in enumerate(change.old))
    return not change.before or lines.get(change.line) == change.before[-1]


class WrongEdit(NamedTuple):
    """Something plausible that does not help."""

    line: int
    text: str
    piece: Fragment
    suspect: str


def wrong_edit(change: Change, lines: dict[int, str], rng: random.Random) -> WrongEdit | None:
    """An edit of another line of the function, of the kind that a bug is mended with; None where there is nothing to suspect."""
    guilty = range(change.line, change.line + max(1, len(change.old)))
    found = []
    for number in sorted(_code_lines(lines)):
        text = lines[number]
        if number in guilty or re.match(
            r"\s*(?:async )?(?:def|while)\b|\s*[#@]", text
        ):  # a wrong `while` may never end
            continue
        for pattern, becomes, suspect in WRONG:
            match = re.search(pattern, text)
            if match and text.find(match.group()) == match.start():
                found.append(WrongEdit(number, text.strip(), Fragment(match.group(), becomes), suspect))
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
    path: str, wrong: WrongEdit, view: Command, run_test: str, rng: random.Random
) -> Generator[Action, str, bool]:
    """Try the wrong edit, see the test fail, and take it back. Returns whether the test passed after all."""
    command = sed_substitute(path, wrong.line, wrong.piece)
    if command is None:
        return False
    yield Action(_suspicion(wrong.line, wrong.text, wrong.piece, wrong.suspect, rng), command)
    seen = yield Action(_rerun(rng), bash(run_test))
    if passes(seen):
        yield Action("The test passes now. I submit.", SUBMIT)
        return True
    yield Action("The test still fails, so that edit was wrong. I undo it.", bash(f"git checkout -- {path}"))
    yield Action("The edit is undone. I read the code again.", view)
    return False


def _repair(problem: Problem, view: Command, run_test: str, rng: random.Random) -> Work:
    """Make the right edit, run the test, submit. An edit that did not take is undone and made by the editor."""
    form = rng.choices(list(EDIT_FORMS), list(EDIT_FORMS.values()))[0]
    for attempt in (form, "editor" if form == "sed" else "sed"):
        for change in reversed(problem.changes):  # from the bottom, so that the line numbers above stay
            seen = yield _edit(change, attempt, problem.workdir, rng)
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


def _edit(change: Change, form: str, workdir: str, rng: random.Random) -> Action:
    command = None
    if form == "python":
        command = by_python(change)
    if form in ("sed", "python"):
        command = command or by_sed(change)
    command = command or by_editor(change, workdir)
    piece = _piece(command, change)
    if piece:
        return Action(_suspicion(change.line, change.old[0].strip(), piece, _suspect(piece), rng), command)
    if not change.new:
        thought = f"Line {change.line} should not be there: `{_brief(change.old[0])}`. I delete it."
    elif not change.old:
        thought = f"After line {change.line} a statement is missing. I add `{_brief(change.new[0])}`."
    else:
        thought = f"Line {change.line} is wrong: `{_brief(change.old[0])}`. It should be `{_brief(change.new[0])}`."
    return Action(thought, command)


def _piece(command: Command, change: Change) -> Fragment | None:
    """What a one-line sed command changes; None for other edits."""
    match = re.match(r"sed -i '\d+s(.)", command.arguments.get("command", ""))
    if not match or len(change.old) != 1:
        return None
    usable = (
        piece
        for piece in fragments(change.old[0], change.new[0])
        if sed_substitute(change.path, change.line, piece) == command
    )
    return next(usable, None)


def _suspect(piece: Fragment) -> str:
    """What a piece of code is called; the same words as for a wrong suspicion."""
    for pattern, _, name in WRONG:
        if re.search(pattern, f" {piece.old} "):
            return name
    return "the expression"


def _suspicion(line: int, text: str, piece: Fragment, suspect: str, rng: random.Random) -> str:
    said = rng.choice(["looks wrong", "looks suspicious"])
    return f"Line {line}: `{_brief(text)}`. Here {suspect} {said}. I change `{piece.old}` to `{piece.new}`."


def _brief(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 70 else f"{text[:69]}…"


def _rerun(rng: random.Random) -> str:
    return rng.choice(["I run the failing test again.", "I check the edit with the failing test."])
