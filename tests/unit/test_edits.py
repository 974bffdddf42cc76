"""SEARCH/REPLACE: what is read in an answer, and what it makes of files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.evaluation.edits import Edit, apply_edits, parse_edits, plain_path


def block(search: str, replace: str, path: str = "a.py") -> str:
    return f"### {path}\n<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE"


def test_every_block_is_read_whatever_stands_around_it():
    answer = (
        "<think>\n### not.py\nI look at <<<<<<< SEARCH\n</think>\nFirst:\n```python\n"
        + block("x = 1", "x = 2")
        + "\n```\nthen\n"
        "<<<<<<< SEARCH\n    y\n=======\n>>>>>>> REPLACE\n" + block("u\nv", "u\n\nv", "`./b/c.py`")
    )
    parsed = parse_edits(answer)
    assert parsed.thought.startswith("### not.py")
    assert parsed.edits == (
        Edit("a.py", ("x = 1",), ("x = 2",)),
        Edit("a.py", ("    y",), ()),
        Edit("b/c.py", ("u", "v"), ("u", "", "v")),
    )


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "no <<<<<<< SEARCH block"),
        ("I would change x.", "no <<<<<<< SEARCH block"),
        ("<think>" + block("a", "b") + "</think>", "no <<<<<<< SEARCH block"),
        ("<think>I begin with\n" + block("a", "b"), "no <<<<<<< SEARCH block"),
        ("<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE", "no `### path` above"),
        ("### a.py\n<<<<<<< SEARCH\na", "has no ======="),
        ("### a.py\n<<<<<<< SEARCH\na\n=======\nb", "has no >>>>>>> REPLACE"),
        (block("a", "b") + "\n<<<<<<< SEARCH\na", "has no ======="),
    ],
)
def test_a_malformed_answer_says_what_is_wrong_and_edits_nothing(answer, problem):
    parsed = parse_edits(answer)
    assert parsed.edits == ()
    assert problem in parsed.problem


@pytest.mark.parametrize(
    "written", ["pkg/a.py", "`pkg/a.py`", "./pkg/a.py", "/testbed/pkg/a.py", " pkg/a.py ", '"pkg/a.py"', "pkg//a.py"]
)
def test_a_path_is_that_of_git_however_it_is_written(written):
    assert plain_path(written) == "pkg/a.py"


def apply(answer: str, **files: str):
    return apply_edits(parse_edits(answer).edits, {f"{name}.py": text for name, text in files.items()})


def test_edits_work_on_whole_lines_one_after_the_other():
    answer = block("x = 1", "x = 2") + "\n" + block("x = 2\ny", "x = 3\ny")
    assert apply(answer, a="x = 1\ny\nxx = 1\n", b="x = 1\n").files == {"a.py": "x = 3\ny\nxx = 1\n"}


def test_every_place_where_the_lines_stand_is_edited():
    assert apply(block("a", "b"), a="a\na\nc\na\n").files == {"a.py": "b\nb\nc\nb\n"}


def test_lines_can_be_removed_and_the_last_one_needs_no_newline():
    gone = "### a.py\n<<<<<<< SEARCH\nb\n=======\n>>>>>>> REPLACE"
    assert apply(gone, a="a\nb\nc").files == {"a.py": "a\nc"}
    assert apply(block("c", "d"), a="a\nc").files == {"a.py": "a\nd"}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (block("z", "b"), "SEARCH does not stand in a.py"),
        (block("  a", "b"), "SEARCH does not stand in a.py"),
        (block("a", "b", "other.py"), "other.py is no file that was shown"),
        (block("", "b"), "SEARCH is empty"),
        (block("a", "b") + "\n" + block("a", "c"), "edit 2: SEARCH does not stand"),
    ],
)
def test_edits_that_do_not_fit_change_nothing_at_all(answer, problem):
    edited = apply(answer, a="a\nc\n", b="a\n")
    assert edited.files == {}
    assert problem in edited.problem


def test_an_edit_that_changes_nothing_is_no_problem_and_no_change():
    edited = apply(block("a", "a"), a="a\n")
    assert (edited.files, edited.problem) == ({}, "")


lines = st.lists(st.sampled_from(["", "a", "    b", "c = 1", "### a.py", "<<<<<<<"]), min_size=1, max_size=6)


@given(lines, lines, lines, lines)
def test_what_is_written_is_what_is_applied(before, search, after, replace):
    text = "\n".join([*before, *search, *after])
    edited = apply(block("\n".join(search), "\n".join(replace)), a=text)
    if not any(line.strip() for line in search):
        assert edited.problem
    elif search == replace:
        assert (edited.files, edited.problem) == ({}, "")
    else:
        assert not edited.problem
        assert "\n".join(replace) in edited.files.get("a.py", text)


@given(st.text(alphabet="ab#<>=SEARCHREPLACE/\n `\ud800", max_size=200))
def test_no_answer_breaks_the_reader(answer):
    parsed = parse_edits(answer)
    assert bool(parsed.edits) != bool(parsed.problem)
