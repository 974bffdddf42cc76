"""The parts of the runtime that need no engine: the editor's words, quoting, who owns a box."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import uuid
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_srl.errors import EngineUnavailable, ImageMissing
from swe_srl.runtime import CommandResult
from swe_srl.runtime.tools import execute
from swe_srl.schema import Command


class Files:
    """A box that is a dictionary of files."""

    workdir = "/testbed"

    def __init__(self, **files: bytes) -> None:
        self.files = {f"/testbed/{name}": content for name, content in files.items()}
        self.commands: list[str] = []

    def run(self, command: str, *, timeout_s: float) -> CommandResult:
        self.commands.append(command)
        return CommandResult("/testbed\n/testbed/f", 0)

    def read_file(self, path: str) -> bytes:
        if path == "/testbed":
            raise IsADirectoryError(path)
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def write_file(self, path: str, content: bytes) -> None:
        if path.startswith("/full"):
            raise OSError(28, "No space left on device", path)
        self.files[path] = content


def edit(box: Files, command: str, path: str = "/testbed/f", **arguments: str) -> tuple[str, int | None]:
    result = execute(
        Command(tool="str_replace_editor", arguments={"command": command, "path": path, **arguments}), box, timeout_s=5
    )
    return result.output, result.exit_code


def test_bash_goes_to_the_box_and_submit_does_nothing_there():
    box = Files()
    assert execute(Command(tool="bash", arguments={"command": "ls"}), box, timeout_s=5).output == "/testbed\n/testbed/f"
    assert execute(Command(tool="submit"), box, timeout_s=5)[:2] == ("", 0)
    assert box.commands == ["ls"]


def test_an_unknown_tool_is_a_result():
    assert execute(Command(tool="browse"), Files(), timeout_s=5).exit_code == 127


def test_view_numbers_the_lines_as_cat_does():
    said, code = edit(Files(f=b"a\n\tb\n"), "view")
    assert code == 0
    assert said == "Here's the result of running `cat -n` on /testbed/f:\n     1\ta\n     2\t        b\n     3\t\n"


@pytest.mark.parametrize(
    ("given_range", "shown"),
    [("[2, 3]", "     2\tb\n     3\tc\n"), ("[3,-1]", "     3\tc\n     4\td\n"), (" [1, 1] ", "     1\ta\n")],
)
def test_view_shows_a_range_of_lines(given_range, shown):
    assert edit(Files(f=b"a\nb\nc\nd"), "view", view_range=given_range)[0].endswith(f"/testbed/f:\n{shown}")


@pytest.mark.parametrize(
    ("given_range", "said"),
    [
        ("all", "Invalid `view_range`. It should be a list of two integers."),
        ("[1]", "Invalid `view_range`. It should be a list of two integers."),
        (
            "[0, 2]",
            "Invalid `view_range`: [0, 2]. Its first element `0` should be within the range of lines of the file: [1, 4]",
        ),
        (
            "[1, 9]",
            "Invalid `view_range`: [1, 9]. Its second element `9` should be smaller than the number of lines in the file: `4`",
        ),
        ("[3, 2]", "Invalid `view_range`: [3, 2]. Its second element `2` should be larger or equal than its first `3`"),
    ],
)
def test_a_range_that_is_none_is_refused(given_range, said):
    assert edit(Files(f=b"a\nb\nc\nd"), "view", view_range=given_range) == (said, 1)


def test_view_lists_a_directory():
    said, code = edit(Files(), "view", "/testbed")
    assert code == 0
    assert (
        said
        == "Here's the files and directories up to 2 levels deep in /testbed, excluding hidden items:\n/testbed\n/testbed/f\n"
    )
    assert edit(Files(), "view", "/testbed", view_range="[1, 2]")[1] == 1


def test_a_long_file_is_clipped():
    said, _ = edit(Files(f=b"x" * 20_000), "view")
    assert len(said) < 17_000
    assert "<response clipped>" in said


def test_create_writes_and_does_not_overwrite():
    box = Files()
    assert edit(box, "create", file_text="x\n") == ("File created successfully at: /testbed/f", 0)
    assert box.files["/testbed/f"] == b"x\n"
    assert edit(box, "create", file_text="y\n") == (
        "File already exists at: /testbed/f. Cannot overwrite files using command `create`.",
        1,
    )
    assert box.files["/testbed/f"] == b"x\n"


def test_str_replace_replaces_once_and_shows_the_surroundings():
    box = Files(f="".join(f"line {i}\n" for i in range(1, 21)).encode())
    said, code = edit(box, "str_replace", old_str="line 10\n", new_str="ten\nand a half\n")
    assert code == 0
    shown = [
        "line 6",
        "line 7",
        "line 8",
        "line 9",
        "ten",
        "and a half",
        "line 11",
        "line 12",
        "line 13",
        "line 14",
        "line 15",
    ]
    numbered = "".join(f"{number:6}\t{text}\n" for number, text in enumerate(shown, 6))
    assert said == (
        f"The file /testbed/f has been edited. Here's the result of running `cat -n` on a snippet of /testbed/f:\n{numbered}"
        "Review the changes and make sure they are as expected. Edit the file again if necessary."
    )
    assert b"line 9\nten\nand a half\nline 11\n" in box.files["/testbed/f"]


def test_str_replace_without_new_text_deletes():
    box = Files(f=b"a\nb\nc\n")
    assert edit(box, "str_replace", old_str="b\n")[1] == 0
    assert box.files["/testbed/f"] == b"a\nc\n"


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ("zzz", "No replacement was performed, old_str `zzz` did not appear verbatim in /testbed/f."),
        ("", "No replacement was performed, old_str `` did not appear verbatim in /testbed/f."),
        (
            "a",
            "No replacement was performed. Multiple occurrences of old_str `a` in lines [1, 3]. Please ensure it is unique",
        ),
        ("b", "No replacement was performed, old_str `b` is the same as new_str `b`."),
    ],
)
def test_str_replace_refuses_what_is_absent_ambiguous_or_the_same(old, said):
    box = Files(f=b"a\nb\na\n")
    assert edit(box, "str_replace", old_str=old, new_str="b") == (said, 1)
    assert box.files["/testbed/f"] == b"a\nb\na\n"


def test_insert_puts_text_after_a_line():
    box = Files(f=b"a\nb\n")
    said, code = edit(box, "insert", insert_line="1", new_str="x\ny")
    assert code == 0
    assert box.files["/testbed/f"] == b"a\nx\ny\nb\n"
    assert said.startswith(
        "The file /testbed/f has been edited. Here's the result of running `cat -n` on a snippet of the edited file:\n     1\ta\n     2\tx\n"
    )
    assert edit(box, "insert", insert_line="0", new_str="top")[1] == 0
    assert box.files["/testbed/f"].startswith(b"top\na\n")


@pytest.mark.parametrize("line", ["-1", "4", "two", ""])
def test_insert_outside_the_file_is_refused(line):
    said, code = edit(Files(f=b"a\nb\n"), "insert", insert_line=line, new_str="x")
    assert (said, code) == (
        f"Invalid `insert_line` parameter: {line}. It should be within the range of lines of the file: [0, 3]",
        1,
    )


def test_undo_brings_back_the_bytes_of_before_for_each_box_apart():
    box, other = Files(f=b"tab\there \xff\n"), Files(f=b"tab\n")
    edit(box, "str_replace", old_str="tab", new_str="TAB")
    edit(box, "insert", insert_line="0", new_str="top")
    assert edit(other, "undo_edit") == ("No edit history found for /testbed/f.", 1)
    assert edit(box, "undo_edit")[0].startswith(
        "Last edit to /testbed/f undone successfully. Here's the result of running `cat -n` on /testbed/f:\n     1\tTAB"
    )
    assert edit(box, "undo_edit")[1] == 0
    assert box.files["/testbed/f"] == b"tab\there \xff\n"
    assert edit(box, "undo_edit")[1] == 1


def test_the_editor_does_not_keep_a_closed_box_in_memory():
    box = Files(f=b"a")
    edit(box, "view")
    trace = weakref.ref(box)
    del box
    gc.collect()
    assert trace() is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"command": "view", "path": "f"}, "The path f is not an absolute path, it should start with `/`. Maybe you meant /f?"),
        ({"command": "view", "path": "/no"}, "The path /no does not exist. Please provide a valid path."),
        ({"command": "insert", "path": "/testbed", "insert_line": "1", "new_str": ""}, "The path /testbed is a directory and only the `view` command can be used on directories"),
        ({"command": "create", "path": "/x"}, "Parameter `file_text` is required for command: create"),
        ({"command": "view"}, "Parameter `path` is required for command: view"),
        ({"command": "create", "path": "/full/x", "file_text": ""}, "Ran into No space left on device while trying to work on /full/x"),
    ],
)  # fmt: skip
def test_what_the_editor_cannot_do_it_says(arguments, said):
    result = execute(Command(tool="str_replace_editor", arguments=arguments), Files(), timeout_s=5)
    assert result[:2] == (said, 1)


def test_an_unknown_editor_command_is_refused_with_the_known_ones():
    said, code = edit(Files(), "delete")
    assert code == 1
    assert "view, create, str_replace, insert, undo_edit" in said


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_quoting_is_one_line_and_bash_reads_it_back(text):
    from swe_srl.runtime.shell import quote

    quoted = quote(text)
    assert "\n" not in quoted
    back = subprocess.run(
        ["bash", "-c", f"printf %s {quoted}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    assert back.stdout == text.encode()


def test_an_owner_lives_as_long_as_its_process_and_a_number_used_again_does_not_count():
    from swe_srl.runtime.processes import owner_label, owner_lives

    mine = owner_label()
    host, pid, began = mine.split(":")
    assert owner_lives(mine)
    assert not owner_lives(f"{host}:{pid}:{int(began) - 1}")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    label = owner_label(child.pid)
    assert owner_lives(label)
    child.communicate(b"\n")
    assert not owner_lives(label)
    assert owner_lives(f"elsewhere:{pid}:{began}"), "a process of another host cannot be asked"
    assert owner_lives(""), "a container that nobody signed is not ours to remove"


# docker-py forgets a socket that it could not connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_an_engine_one_sentence_says_what_to_do(monkeypatch):
    from swe_srl.runtime.docker import client

    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/socket")
    monkeypatch.setattr(client, "_clients", {})
    with pytest.raises(EngineUnavailable, match=r"scripts/ensure_docker\.sh"):
        client.client()
    gc.collect()


@pytest.mark.docker
def test_an_image_is_built_from_its_context_or_said_to_be_missing(base_image, tmp_path):
    from swe_srl.runtime.docker.client import client
    from swe_srl.runtime.docker.images import ensure_image, has_image

    tag = f"swe-srl/test-ensure:{uuid.uuid4().hex[:12]}"
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo {tag} > /made\n")
    try:
        ensure_image(tag, str(tmp_path))
        assert has_image(tag)
        assert client().images.get(tag).labels["swe-srl"] == "image"
        ensure_image(tag, None)
    finally:
        client().images.remove(tag, force=True)
    with pytest.raises(ImageMissing, match=r"base_image\.sh"):
        ensure_image("swe-srl/base:000000000000", None)
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo why it failed; false\n")
    with pytest.raises(ImageMissing, match="why it failed"):
        ensure_image("swe-srl/test-ensure:2", str(tmp_path))
    (tmp_path / "Dockerfile").write_text("FROM swe-srl/nosuch:1\n")
    with pytest.raises(ImageMissing, match="swe-srl tasks make nosuch"):
        ensure_image("swe-srl/test-ensure:3", str(tmp_path))
    with pytest.raises(ImageMissing, match="docker load"):
        ensure_image("localhost:1/no/such:image", None)
