"""One protocol, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.dialogue import ContextConfig, format_completion, parse, render, shorten
from swe_srl.schema import Command, Task, Turn

TASK = Task(task_id="t", repo="r", base_commit="c", problem_statement="It is broken.", image="i")
LS = Command(tool="bash", arguments={"command": "ls"})

texts = st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=60).filter(
    lambda text: not any(tag in text for tag in ("<parameter", "</parameter", "<function", "</function", "think>"))
)


@given(thought=texts, command=texts.filter(str.strip))
def test_what_is_formatted_is_parsed_back(thought, command):
    padded = command.startswith("\n") and command.endswith("\n") and len(command) > 1
    action = Command(tool="bash", arguments={"command": command})
    parsed = parse(format_completion(thought, action))
    assert parsed.problem == ""
    assert parsed.thought == thought.strip()
    assert parsed.command.arguments["command"] == (command[1:-1] if padded else command)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no <think>"),
        ("ls", "no <think>"),
        ("<think>a</think> ls", "no <function"),
        ("<think>a</think><function=bash><parameter=command>ls</parameter>", "no <function"),
        ("<think>a</think><function=bash><parameter=command>ls</parameter></function> and more", "after the action"),
        ("<think>a</think><function=rm></function>", "unknown tool"),
        ("<think>a</think><function=bash></function>", "needs a command"),
        ("<think>a</think><function=bash><parameter=cmd>ls</parameter></function>", "no parameter"),
        ("<think>a</think><function=submit>now</function>", "between the parameters"),
        (
            "<think>a</think><function=bash><parameter=command>a</parameter><parameter=command>b</parameter></function>",
            "twice",
        ),
        ("<think>a</think><function=submit></function><function=submit></function>", "after the action"),
    ],
)
def test_what_does_not_follow_the_format_says_why(text, problem):
    parsed = parse(text)
    assert parsed.command is None
    assert problem in parsed.problem


def test_a_closing_tag_inside_a_command_is_part_of_the_command():
    command = Command(tool="bash", arguments={"command": "echo '</parameter>' | cat"})
    assert parse(format_completion("x", command)).command == command


def test_the_window_shows_the_last_rounds_without_thoughts():
    turns = [Turn(thought=f"secret {n}", command=LS, observation=f"o{n}", exit_code=n) for n in range(5)]
    messages = render(TASK, turns, ContextConfig(window=2))
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[3]["content"] == "[exit 3]\no3"
    assert messages[5]["content"] == "[exit 4]\no4"
    assert not any("secret" in m["content"] for m in messages)
    assert len(render(TASK, turns, ContextConfig(window="all"))) == 12
    assert len(render(TASK, turns, ContextConfig(window=0))) == 2


def test_what_a_model_is_shown_does_not_depend_on_the_machines_speed_or_its_memory():
    runs = [
        f"FAILED <function f at {at}> took 1.5s\n1 failed in {took}"
        for at, took in (("0x7f0123456789", "0.12s"), ("0x7fffa123bcd0", "1.03s"))
    ]
    shown = {
        render(TASK, [Turn(command=LS, observation=run, exit_code=1)], ContextConfig())[3]["content"] for run in runs
    }
    assert shown == {"[exit 1]\nFAILED <function f at 0x0> took 1.5s\n1 failed in 0.00s"}
    raw = ContextConfig(steady=False)
    assert "0.12s" in render(TASK, [Turn(command=LS, observation=runs[0], exit_code=1)], raw)[3]["content"]


def test_a_long_observation_keeps_its_head_and_tail_and_says_how_much_is_missing():
    text = shorten("a" * 100 + "b" * 100, 20)
    assert text == "a" * 10 + "\n[… 180 characters left out …]\n" + "b" * 10
    assert shorten("short", 20) == "short"


def test_a_timed_out_command_is_told_as_such():
    turn = Turn(command=LS, observation="partial", timed_out=True)
    assert render(TASK, [turn], ContextConfig())[-1]["content"] == "[timed out]\npartial"
