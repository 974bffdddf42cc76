"""Files and an issue → the prompt for one edit; the answer to it → a patch, or why there is none. Shared by oracle and agentless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from swe_srl.agent import PROMPT_TOO_LONG
from swe_srl.dialogue import Message, shorten
from swe_srl.evaluation.edits import END, MIDDLE, START, apply_edits, parse_edits
from swe_srl.evaluation.rounds import Log
from swe_srl.evaluation.sources import Count, Source, show, try_edit
from swe_srl.policy.base import Completion
from swe_srl.runtime.base import Sandbox
from swe_srl.schema import Task

EDITED, MALFORMED, NOT_APPLIED, NO_CHANGE = "edited", "malformed", "not_applied", "no_change"
SYSTEM = f"""\
You are a software engineer. You are shown an issue and files of the repository it is about, and you mend the code in one answer.
Write your reasoning in <think> </think>, then your edits, each in a code block of its own:
```
### path/of/the/file.py
{START}
lines as they stand in the file, whole and with their indentation
{MIDDLE}
the lines that take their place
{END}
```
The lines to search for must stand in the file exactly so. Edit only files that are shown, and no tests."""

ISSUE = """\
The issue:

{statement}

The files:

{files}

Find the cause in the files, and write the edits that mend it."""


class Prompt(NamedTuple):
    """What the model is asked, and how much did not fit."""

    messages: list[Message]
    num_tokens_cut: int


class Tried(NamedTuple):
    """What became of one answer."""

    exit_status: str
    patch: str = ""


def edit_prompt(
    task: Task, sources: Sequence[Source], *, room: int, count: Count, max_statement_chars: int
) -> Prompt | None:
    """The prompt for an edit of these files in at most `room` tokens; None where not a line of them fits."""
    statement = shorten(task.problem_statement.strip(), max_statement_chars)
    frame = count(SYSTEM) + count(ISSUE.format(statement=statement, files=""))
    files = show(sources, room - frame, count)
    if not files.text:
        return None
    question = ISSUE.format(statement=statement, files=files.text)
    return Prompt(
        [Message(role="system", content=SYSTEM), Message(role="user", content=question)], files.num_tokens_cut
    )


def try_answer(completion: Completion, box: Sandbox, sources: Mapping[str, Source], log: Log) -> Tried:
    """Read the edits of an answer, apply them in the box, and take the patch; the box is left as it was."""
    if completion.finish_reason == PROMPT_TOO_LONG:
        log.judged(completion, "", f"{PROMPT_TOO_LONG}: the model reads less than the budget of the input")
        return Tried(PROMPT_TOO_LONG)
    parsed = parse_edits(completion.text, box.workdir)
    if parsed.problem:
        cut = " (it was cut at the length limit)" if completion.finish_reason == "length" else ""
        log.num_malformed += 1
        log.judged(completion, parsed.thought, f"{MALFORMED}: {parsed.problem}{cut}")
        return Tried(MALFORMED)
    log.num_edits += 1
    edited = apply_edits(parsed.edits, {path: source.text for path, source in sources.items()})
    if edited.problem:
        log.judged(completion, parsed.thought, f"{NOT_APPLIED}: {edited.problem}")
        return Tried(NOT_APPLIED)
    log.num_edits_applied += 1
    patch = try_edit(box, sources, edited.files) if edited.files else ""
    status = EDITED if patch else NO_CHANGE
    log.judged(completion, parsed.thought, status)
    return Tried(status, patch)
