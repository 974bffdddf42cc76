"""Arguments of `str_replace_editor` + a box → the tool's observation.

The wording of what it says is the tool's own (Anthropic's editor as SWE-agent ships it), so that an observation recorded
by a teacher and ours can be compared. Two things are done better: tabs of a file stay tabs, and undo writes bytes back.
"""

from __future__ import annotations

import ast
import posixpath
import shlex
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NoReturn

from swe_srl.runtime.base import Sandbox

NUM_CONTEXT_LINES = 4
"""Lines shown above and below an edit."""
MAX_RESPONSE_CHARS = 16_000
CLIPPED = (
    "<response clipped><NOTE>To save on context only part of this file has been shown to you. You should retry this tool after you have "
    "searched inside the file with `grep -n` in order to find the line numbers of what you are looking for.</NOTE>"
)
_ALLOWED = ("view", "create", "str_replace", "insert", "undo_edit")

_editors: weakref.WeakKeyDictionary[Sandbox, Editor] = weakref.WeakKeyDictionary()


class EditorError(Exception):
    """What the tool answers when it does not do what it was asked; a value for the agent, exit code 1."""


def editor_of(sandbox: Sandbox) -> Editor:
    """The editor of this box; it remembers what it can undo."""
    if sandbox not in _editors:
        _editors[sandbox] = Editor(weakref.ref(sandbox))
    return _editors[sandbox]


class Editor:
    """View, create and edit the files of one box."""

    def __init__(self, sandbox: Callable[[], Sandbox | None], timeout_s: float = 60.0) -> None:
        self._sandbox = sandbox
        self._timeout_s = timeout_s
        self._history: defaultdict[str, list[bytes]] = defaultdict(list)

    def call(self, arguments: Mapping[str, str]) -> str:
        """Do one call and say what became of it. Raises EditorError with what the tool answers when it refuses."""
        command = arguments.get("command", "").strip()
        if command not in _ALLOWED:
            _refuse(
                f"Unrecognized command {command}. The allowed commands for the str_replace_editor tool are: {', '.join(_ALLOWED)}"
            )
        path = arguments.get("path", "").strip()
        if not path:
            _refuse(f"Parameter `path` is required for command: {command}")
        try:
            match command:
                case "view":
                    return self._view(path, arguments.get("view_range"))
                case "create":
                    return self._create(path, _required(arguments, "file_text", command))
                case "str_replace":
                    return self._replace(path, _required(arguments, "old_str", command), arguments.get("new_str", ""))
                case "insert":
                    line, text = _required(arguments, "insert_line", command), _required(arguments, "new_str", command)
                    return self._insert(path, line, text)
                case _:
                    return self._undo(path)
        except OSError as error:
            raise EditorError(f"Ran into {error.strerror or error} while trying to work on {path}") from error

    def _box(self) -> Sandbox:
        box = self._sandbox()
        assert box is not None, "an editor outlived its box"
        return box

    def _load(self, path: str) -> str:
        """Text of a file; bytes that are not UTF-8 survive as surrogates. Raises OSError, or EditorError for a relative path."""
        if not path.startswith("/"):
            _refuse(
                f"The path {path} is not an absolute path, it should start with `/`. Maybe you meant {posixpath.join('/', path)}?"
            )
        return self._box().read_file(path).decode("utf-8", "surrogateescape")

    def _read(self, path: str) -> str:
        """Text of a file that is there to be edited."""
        try:
            return self._load(path)
        except FileNotFoundError:
            _refuse(f"The path {path} does not exist. Please provide a valid path.")
        except IsADirectoryError:
            _refuse(f"The path {path} is a directory and only the `view` command can be used on directories")

    def _write(self, path: str, text: str) -> None:
        self._box().write_file(path, text.encode("utf-8", "surrogateescape"))

    def _view(self, path: str, view_range: str | None) -> str:
        try:
            text, first = self._load(path), 1
        except FileNotFoundError:
            _refuse(f"The path {path} does not exist. Please provide a valid path.")
        except IsADirectoryError:
            if view_range:
                _refuse("The `view_range` parameter is not allowed when `path` points to a directory.")
            return self._view_directory(path)
        if view_range:
            lines = text.split("\n")
            first, last = _parse_range(view_range, len(lines))
            text = "\n".join(lines[first - 1 :] if last == -1 else lines[first - 1 : last])
        return _numbered(text, path, first)

    def _view_directory(self, path: str) -> str:
        listing = self._box().run(
            rf"find {shlex.quote(path)} -maxdepth 2 -not -path '*/\.*' | sort", timeout_s=self._timeout_s
        )
        return f"Here's the files and directories up to 2 levels deep in {path}, excluding hidden items:\n{listing.output}\n"

    def _create(self, path: str, text: str) -> str:
        try:
            self._load(path)
        except FileNotFoundError:
            self._write(path, text)
            # As the tool does: what undo would bring back is the file as it was created.
            self._history[path].append(text.encode("utf-8", "surrogateescape"))
        except IsADirectoryError:
            _refuse(f"The path {path} is a directory and only the `view` command can be used on directories")
        else:
            _refuse(f"File already exists at: {path}. Cannot overwrite files using command `create`.")
        return f"File created successfully at: {path}"

    def _replace(self, path: str, old: str, new: str) -> str:
        text = self._read(path)
        found = _starts(text, old)
        if not found:
            _refuse(f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.")
        if len(found) > 1:
            lines = sorted(set(found))
            _refuse(
                f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines {lines}. Please ensure it is unique"
            )
        if old == new:
            _refuse(f"No replacement was performed, old_str `{old}` is the same as new_str `{new}`.")
        edited = text.replace(old, new)
        self._write(path, edited)
        self._history[path].append(text.encode("utf-8", "surrogateescape"))
        start = max(0, found[0] - 1 - NUM_CONTEXT_LINES)
        snippet = "\n".join(edited.split("\n")[start : found[0] + new.count("\n") + NUM_CONTEXT_LINES])
        return (
            f"The file {path} has been edited. {_numbered(snippet, f'a snippet of {path}', start + 1)}"
            "Review the changes and make sure they are as expected. Edit the file again if necessary."
        )

    def _insert(self, path: str, insert_line: str, new: str) -> str:
        text = self._read(path)
        lines = text.split("\n")
        number = _parse_int(insert_line)
        if number is None or not 0 <= number <= len(lines):
            _refuse(
                f"Invalid `insert_line` parameter: {insert_line.strip()}. It should be within the range of lines of the file: {[0, len(lines)]}"
            )
        added = new.split("\n")
        edited = lines[:number] + added + lines[number:]
        self._write(path, "\n".join(edited))
        self._history[path].append(text.encode("utf-8", "surrogateescape"))
        start = max(0, number - NUM_CONTEXT_LINES)
        snippet = "\n".join(edited[start : number + len(added) + NUM_CONTEXT_LINES])
        return (
            f"The file {path} has been edited. {_numbered(snippet, 'a snippet of the edited file', start + 1)}"
            "Review the changes and make sure they are as expected (correct indentation, no duplicate lines, etc). Edit the file again if necessary."
        )

    def _undo(self, path: str) -> str:
        if not self._history[path]:
            _refuse(f"No edit history found for {path}.")
        before = self._history[path].pop()
        self._box().write_file(path, before)
        return (
            f"Last edit to {path} undone successfully. {_numbered(before.decode('utf-8', 'surrogateescape'), path, 1)}"
        )


def _refuse(message: str) -> NoReturn:
    raise EditorError(message)


def _required(arguments: Mapping[str, str], name: str, command: str) -> str:
    value = arguments.get(name)
    if value is None:
        _refuse(f"Parameter `{name}` is required for command: {command}")
    return value


def _numbered(text: str, what: str, first: int) -> str:
    """`text` as `cat -n` shows it, from line number `first` on, with tabs as spaces."""
    if len(text) > MAX_RESPONSE_CHARS:
        text = text[:MAX_RESPONSE_CHARS] + CLIPPED
    lines = text.expandtabs().split("\n")
    body = "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines, first))
    return f"Here's the result of running `cat -n` on {what}:\n{body}\n".encode("utf-8", "surrogateescape").decode(
        "utf-8", "replace"
    )


def _starts(text: str, old: str) -> list[int]:
    """Line numbers on which an occurrence of `old` begins."""
    numbers, position = [], text.find(old) if old else -1
    while position >= 0:
        numbers.append(text.count("\n", 0, position) + 1)
        position = text.find(old, position + len(old))
    return numbers


def _parse_int(text: str) -> int | None:
    try:
        return int(text.strip())
    except ValueError:
        return None


def _parse_range(view_range: str, num_lines: int) -> tuple[int, int]:
    """First and last line out of `[first, last]`; a last of -1 is the end of the file."""
    try:
        values = ast.literal_eval(view_range.strip())
    except (ValueError, SyntaxError):
        values = None
    if not isinstance(values, list | tuple) or len(values) != 2 or not all(type(value) is int for value in values):
        _refuse("Invalid `view_range`. It should be a list of two integers.")
    first, last = values
    shown = f"Invalid `view_range`: {[first, last]}."
    if not 1 <= first <= num_lines:
        _refuse(
            f"{shown} Its first element `{first}` should be within the range of lines of the file: {[1, num_lines]}"
        )
    if last > num_lines:
        _refuse(
            f"{shown} Its second element `{last}` should be smaller than the number of lines in the file: `{num_lines}`"
        )
    if last != -1 and last < first:
        _refuse(f"{shown} Its second element `{last}` should be larger or equal than its first `{first}`")
    return first, last
