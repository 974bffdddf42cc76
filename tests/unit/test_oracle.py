"""The built-in teacher: its edits are exact, its work is the same for the same seed, and it goes by what it sees."""

import json
import random
import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_srl.dialogue import ContextConfig, Message, parse, render
from swe_srl.errors import EndpointError
from swe_srl.policy.base import Sampling
from swe_srl.policy.endpoint import EndpointConfig
from swe_srl.schema import Task, Turn
from swe_srl.testing import engineer
from swe_srl.testing.edits import by_editor, by_python, by_sed, changes_of, fragments, piece_of
from swe_srl.testing.oracle import serve_oracle

CODE = '''\
import os


def other(x):
    return x


def clamp(x, low, high):
    """Keep x between low and high.

    One == two, and 1 + 1.
    """
    if x < low:
        return low
    if x < high:
        return high
    return x


def last(x):
    return x
'''
GOLD = """\
diff --git a/pkg/num.py b/pkg/num.py
--- a/pkg/num.py
+++ b/pkg/num.py
@@ -12,6 +12,6 @@ def clamp(x, low, high):
     \"\"\"
     if x < low:
         return low
-    if x < high:
+    if x > high:
         return high
     return x
"""
STATEMENT = "`clamp` gives a wrong result\n\nRun it with: `python -m pytest -q tests/test_num.py::test_clamp`\n"


def test_a_change_is_read_with_its_line_and_function():
    [change] = changes_of(GOLD)
    assert (change.path, change.line, change.function) == ("pkg/num.py", 15, "clamp")
    assert (change.old, change.new) == (("    if x < high:",), ("    if x > high:",))
    assert CODE.splitlines()[change.line - 1] == change.old[0]


def test_a_function_that_begins_inside_the_hunk_is_the_one_that_is_meant():
    patch = (
        "--- a/a.py\n+++ b/a.py\n@@ -4,4 +4,4 @@ def other(x):\n \n \n def clamp(x):\n-    return 1\n+    return 2\n"
    )
    assert changes_of(patch)[0].function == "clamp"


def test_the_shortest_piece_is_replaced_and_its_first_occurrence_is_the_right_one():
    command = by_sed(changes_of(GOLD)[0], CODE.splitlines()).arguments["command"]
    assert command == "sed -i '/^def clamp(/,/^def /s/x < high/x > high/' pkg/num.py"
    assert fragments("if a < b and c < d:", "if a < b and c <= d:")[0].old == "< d"
    assert fragments("return f(x)", "return g(f(x))")[0] == ("f(x)", "g(f(x))")
    assert fragments("x = a and b", "x = a or b")[0] == ("and", "or")


def test_a_piece_that_stands_in_another_line_too_is_made_longer():
    assert piece_of("    return low + 1", "    return low - 1", ["    return low + 1"]) == ("low + 1", "low - 1")
    piece = piece_of("    return low + 1", "    return low - 1", ["    x = low + 1", "    return low + 1"])
    assert piece == ("return low + 1", "return low - 1")
    assert piece_of("    return low", "    return high", ["    return low", "    return low"]) is None


LINES = st.text(st.sampled_from("ab01 <>=!+-*/%.,:()[]{}'\"\\&$^|#_@`~?"), min_size=1, max_size=30)


@given(LINES, LINES)
@settings(max_examples=60, deadline=None)
def test_every_edit_makes_exactly_the_wanted_line(tmp_path_factory, old, new):
    if old == new or not old.strip():
        return
    folder = tmp_path_factory.mktemp("edit")
    hunk = f"@@ -1,4 +1,4 @@\n def e():\n def f(x):\n-    {old}\n+    {new}\n def g(x):\n"
    change = changes_of(f"--- a/f.py\n+++ b/f.py\n{hunk}")[0]
    before = f"def e():\n    {old}\ndef f(x):\n    {old}\ndef g(x):\n    {old}\n"
    wanted = f"def e():\n    {old}\ndef f(x):\n    {new}\ndef g(x):\n    {old}\n"
    for command in (by_sed(change, ["def f(x):", f"    {old}", "def g(x):"]), by_python(change._replace(line=4))):
        if command:
            (folder / "f.py").write_text(before)
            subprocess.run(["bash", "-c", command.arguments["command"]], cwd=folder, check=True)
            assert (folder / "f.py").read_text() == wanted


def test_a_line_is_added_by_sed_behind_one_that_is_there(tmp_path):
    (tmp_path / "f.py").write_text("def f(it):\n    it = [*it]\n    return it\n")
    hunk = "@@ -1,3 +1,4 @@\n def f(it):\n     it = [*it]\n+    it[0] += 1  # & more\n     return it\n"
    change = changes_of(f"--- a/f.py\n+++ b/f.py\n{hunk}")[0]
    around = ["def f(it):", "    it = [*it]", "    return it"]
    subprocess.run(["bash", "-c", by_sed(change, around).arguments["command"]], cwd=tmp_path, check=True)
    assert (tmp_path / "f.py").read_text() == "def f(it):\n    it = [*it]\n    it[0] += 1  # & more\n    return it\n"
    assert by_sed(change, [*around, "    it = [*it]"]) is None


def test_the_editor_is_given_enough_to_find_the_place():
    arguments = by_editor(changes_of(GOLD)[0], "/testbed").arguments
    assert arguments["path"] == "/testbed/pkg/num.py"
    assert CODE.count(arguments["old_str"]) == 1
    assert arguments["new_str"] in CODE.replace("x < high", "x > high")


def view(code=CODE):
    """What sed shows of `clamp`, up to the next function."""
    lines = code.splitlines()
    shown = lines[lines.index("def clamp(x, low, high):") : lines.index("def last(x):") + 1]
    return "\n".join(["[exit 0]", *shown])


RIGHT = re.compile(r"s/x < high/x > high/|^str_replace$|t\[14\]")
"""The right edit, in any of its forms."""


def seen(command, fixed):
    if "pytest" in command:
        return "[exit 0]\n1 passed in 0.01s" if fixed else "[exit 1]\n1 failed in 0.01s"
    if command.startswith("grep -rn"):
        return "[exit 0]\n./pkg/num.py:8:def clamp(x, low, high):"
    return view() if command.startswith("sed -n") else "[exit 0]"


def act(seed):
    """The actions of one piece of work on the problem, with honest observations."""
    problem = engineer.Problem("t", STATEMENT, "/testbed", tuple(changes_of(GOLD)))
    doing = engineer.work([problem], random.Random(seed))
    actions, fixed = [next(doing)], False
    while actions[-1].command.tool != "submit":
        command = actions[-1].command.arguments.get("command", "")
        if RIGHT.search(command):
            fixed = True
        if command.startswith("git checkout"):
            fixed = False
        actions.append(doing.send(seen(command, fixed)))
    return actions


def test_work_ends_with_the_right_edit_a_passing_test_and_a_submission():
    lengths = set()
    for seed in range(60):
        actions = act(seed)
        commands = [action.command.arguments.get("command", "") for action in actions]
        assert commands[-2] == "python -m pytest -q tests/test_num.py::test_clamp"
        assert RIGHT.search(commands[-3])
        assert "clamp(" in commands[-4]
        assert all(len(action.thought.split()) <= 40 for action in actions)
        lengths.add(len(actions))
    assert min(lengths) == 5
    assert max(lengths) >= 9


def test_a_detour_is_a_wrong_edit_of_real_code_that_is_seen_to_fail_and_taken_back():
    detours = 0
    for seed in range(60):
        commands = [action.command.arguments.get("command", "") for action in act(seed)]
        edits = [command for command in commands if command.startswith("sed -i")]
        if any("git checkout" in command for command in commands):
            detours += 1
            at = commands.index("git checkout -- pkg/num.py")
            piece = re.fullmatch(r"sed -i '/\^def clamp\(/,/\^def /s/(.*)/.*/' pkg/num.py", edits[0]).group(1)
            assert piece == "x < low"  # of the function, not of its docstring, not the guilty line
            assert "pytest" in commands[at - 1]
            assert commands[at - 2] == edits[0]
            assert commands[at + 1].startswith("sed -n")
    assert 10 <= detours <= 32


def test_what_looks_wrong_is_named_after_what_changes_and_not_after_what_stands_beside_it():
    assert engineer._suspect("    d[item] -= 1", "    d[item] += 1") == "the sign"
    assert engineer._suspect("if not x == 1:", "if x == 1:") == "the condition"
    assert engineer._suspect("return f(a, b)", "return f(b, a)") == "the expression"


def test_code_after_a_docstring_of_which_only_the_end_was_seen_is_told_from_it():
    lines = {7: "def f(x):", 8: '    """Words', 30: "    0 == 1", 31: '    """', 32: "    return 1 == x"}
    assert engineer._code_lines(lines) == {7, 32}


def test_a_test_that_fails_in_the_pipe_of_words_is_no_pass():
    assert engineer.passes("[exit 0]\n.\n1 passed in 0.1s")
    assert not engineer.passes("[exit 1]\n1 failed, 2 passed in 0.1s")
    assert engineer.passes("\x1b[0m[exit 0]\n\x1b[32m.\n\x1b[32m\x1b[1m1 passed\x1b[0m in 0.1s\x1b[0m")


@pytest.fixture
def rows(tmp_path):
    """Two tasks that share their statement, as two bugs in one function may, and differ in their gold patch."""
    twin = GOLD.replace("-12,6 +12,6", "-102,6 +102,6")
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for name, patch in (("t-1", GOLD), ("t-2", twin)):
            row = {
                "instance_id": name, "repo": "r", "base_commit": "0", "problem_statement": STATEMENT, "patch": patch, "test_patch": "",
                "image": "i", "eval_script": "true", "log_parser": "parse_log_pytest", "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": [], "version": "1",
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
    return path


def talk(asked, sampling, offset=0):
    """A whole dialogue over HTTP; returns the actions."""
    task = Task(task_id="t", repo="r", base_commit="0", problem_statement=STATEMENT, image="i")
    turns, fixed = [], False
    for number in range(20):
        at = sampling.model_copy(update={"seed": sampling.seed + number})
        [[answer]] = asked.complete([render(task, turns, ContextConfig(window="all"))], at)
        command = parse(answer.text).command
        assert command, answer.text
        text = command.arguments.get("command", "")
        fixed = not text.startswith("git checkout") and (
            fixed or bool(re.search(rf"{15 + offset}s|str_replace|t\[{14 + offset}\]", text))
        )
        observation = seen(text, fixed) if "-A" not in text or "test_" in text else view(offset=offset)
        exit_code = int(re.match(r"\[exit (\d)\]", observation).group(1))
        turns.append(Turn(command=command, observation=observation.partition("\n")[2], exit_code=exit_code))
        if command.tool == "submit":
            break
    return [turn.command.arguments.get("command", "submit") for turn in turns]


def test_over_http_it_solves_the_task_and_the_same_seed_does_the_same(rows):
    with serve_oracle(rows, seed=1) as url:
        asked = EndpointConfig(model="oracle", base_url=url, max_retries=0).build()
        one, same, others = (talk(asked, Sampling(seed=seed)) for seed in (0, 0, 1000))
        varied = {tuple(talk(asked, Sampling(seed=1000 * sample))) for sample in range(8)}
        asked.close()
    assert one == same
    assert one[-1] == others[-1] == "submit"
    assert len(varied) > 3
    for commands in varied:  # one plan is followed from the first turn to the last
        assert commands.count('grep -rn "def clamp(" --include=*.py .') == 1


def test_of_two_tasks_with_one_statement_the_code_tells_which_it_is(rows):
    with serve_oracle(rows) as url:
        asked = EndpointConfig(model="oracle", base_url=url, max_retries=0).build()
        commands = talk(asked, Sampling(seed=3), offset=90)
        asked.close()
    assert any(re.search(r"105s|t\[104\]|str_replace", command) for command in commands)
    assert not any("'15s" in command for command in commands)


def test_it_lists_its_model_and_refuses_what_it_does_not_know(rows):
    import openai

    with serve_oracle(rows) as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        assert [model.id for model in client.models.list()] == ["oracle"]
        client.close()
        asked = EndpointConfig(model="oracle", base_url=url, max_retries=0).build()
        with pytest.raises(EndpointError, match="no problem that the oracle knows"):
            asked.complete([[Message(role="user", content="solve world hunger")]], Sampling())
        asked.close()
