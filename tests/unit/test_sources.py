"""Files and listings within a budget, and files back into their box as they were."""

from __future__ import annotations

import pytest

from swe_srl.dialogue import Message
from swe_srl.errors import SandboxError
from swe_srl.evaluation.base import Candidate
from swe_srl.evaluation.edits import START
from swe_srl.evaluation.locate import LIST, list_files, named_files, show_listing
from swe_srl.evaluation.modes import mode_config
from swe_srl.evaluation.predict import predict
from swe_srl.evaluation.sources import Source, read_source, room, show, token_counter, try_edit
from swe_srl.policy.base import Completion
from swe_srl.schema import Task
from swe_srl.store import Run
from swe_srl.testing import FakeSandbox, ScriptedPolicy


def words(text: str) -> int:
    """One token a word."""
    return len(text.split())


def source(path: str, num_lines: int) -> Source:
    text = "".join(f"{path[0]}{number}\n" for number in range(num_lines))
    return Source(path, text, text.encode())


def test_files_that_fit_are_shown_whole_under_their_paths():
    shown = show([source("a.py", 2), source("b.py", 1)], 100, words)
    assert shown == ("### a.py\na0\na1\n\n### b.py\nb0", 0)


def test_of_files_that_do_not_fit_the_short_stay_whole_and_the_long_keep_their_ends():
    shown = show([source("a.py", 1000), source("b.py", 5), source("c.py", 1000)], 100, words)
    assert "### b.py\nb0\nb1\nb2\nb3\nb4" in shown.text
    for name in "ac":
        assert f"### {name}.py\n{name}0\n{name}1" in shown.text
        assert f"{name}998\n{name}999" in shown.text
    assert "lines left out …]" in shown.text
    assert 90 <= words(shown.text) <= 100
    assert shown.num_tokens_cut == 2 * 1002 + 7 - words(shown.text)
    kept = [line for line in shown.text.splitlines() if line.startswith("a")]
    assert sum(int(line[1:]) < 500 for line in kept) - len(kept) // 2 in (0, 1), (
        "half of its beginning, half of its end"
    )


def test_where_not_a_line_fits_a_file_is_not_shown_and_all_of_it_counts_as_cut():
    assert show([source("a.py", 50)], 4, words) == ("", 52)
    assert show([source("a.py", 50)], -10, words) == ("", 52)


class Counting(ScriptedPolicy):
    """A scripted model that reads 500 tokens."""

    context_tokens = 500

    def count_tokens(self, text: str) -> int:
        return len(text)


def test_tokens_are_counted_by_the_policy_where_it_can_and_never_beyond_what_it_reads():
    assert token_counter(Counting([]))("four") == 4
    assert token_counter(ScriptedPolicy([]))("x" * 10) == 4
    assert room(Counting([]), 10_000, 100) == 500 - 100 - 64
    assert room(ScriptedPolicy([]), 10_000, 100) == 10_000 - 64


@pytest.mark.parametrize("content", [b"a\nb\n", b"a\r\nb\r\n", b"a\nb", b"caf\xe9\nb\n", "é\nb\n".encode(), b"\nb\n"])
def test_a_file_is_edited_in_its_own_ends_of_lines_and_bytes_and_put_back(content):
    box = FakeSandbox()
    box.write_file("a.py", content)
    found = read_source(box, "a.py")
    assert found is not None
    assert "\r" not in found.text
    written: list[bytes] = []
    box.diff = lambda: written.append(box.read_file("a.py")) or "patch"  # type: ignore[method-assign,func-returns-value]
    assert try_edit(box, {"a.py": found}, {"a.py": found.text.replace("b", "c")}) == "patch"
    assert written == [content.replace(b"b", b"c")]
    assert box.read_file("a.py") == content


def test_what_is_no_text_file_is_not_shown():
    box = FakeSandbox({"pkg/a.py": "x"})
    box.write_file("b.bin", b"a\0b")
    assert [read_source(box, path) for path in ("b.bin", "pkg", "gone.py")] == [None, None, None]


def test_a_byte_that_is_no_utf8_is_shown_as_what_cannot_be_searched_for():
    assert "caf�" in show([Source("a.py", b"caf\xe9".decode("utf-8", "surrogateescape"), b"")], 100, words).text


def test_the_listing_leaves_out_tests_and_what_is_no_source():
    names = ["README.md", "pkg/a.py", "pkg/test_a.py", "pkg/tests/b.py", "setup.py", "testing.py", "é.py"]
    assert list_files(FakeSandbox(answers={LIST: "\n".join(names)}), [".py"]) == [
        "pkg/a.py",
        "setup.py",
        "testing.py",
        "é.py",
    ]
    with pytest.raises(SandboxError, match="git lists no files in /testbed"):
        list_files(FakeSandbox(), [".py"])


def test_a_listing_that_is_too_long_keeps_what_the_issue_speaks_of():
    paths = [f"pkg/module{number}.py" for number in range(50)] + ["pkg/zoo/parser.py"]
    shown = show_listing(paths, "The Parser fails on empty input", 12, words)
    assert shown.text.splitlines()[:2] == ["pkg/module0.py", "pkg/module1.py"]
    assert "pkg/zoo/parser.py" in shown.text
    assert shown.text.endswith("files left out …]")
    assert words(shown.text) <= 12
    assert shown.num_tokens_cut == 51 - words(shown.text)
    assert show_listing(paths, "", 51, words).num_tokens_cut == 0
    assert show_listing(paths, "", 1, words) == ("", 51)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("<think>c.py?</think>\n```\nb.py\na.py\n```", ["b.py", "a.py"]),
        ("1. `a.py`\n- /testbed/b.py\n* a.py\nno such.py", ["a.py", "b.py"]),
        ("I think of c.py\n```\na.py\n```\nbut b.py", ["a.py"]),
        ("```\na.py\nb.py\nc.py\n```", ["a.py", "b.py"]),
        ("it is a.py", []),
        ("<think>\na.py\n", []),
        ("", []),
    ],
)
def test_files_are_taken_from_an_answer_in_its_order(answer, named):
    assert named_files(answer, ["a.py", "b.py", "c.py"], most=2, workdir="/testbed") == named


TASK = Task(task_id="a", repo="r", base_commit="c", problem_statement="mend x", image="i")


def edit(value: str) -> str:
    return f"### a.py\n{START}\nx = 1\n=======\nx = {value}\n>>>>>>> REPLACE"


def agentless(path, answers: list[str], *, policy=None, **settings):
    config = mode_config("agentless", {"num_samples": 4, "sampling": {"temperature": 0.8}, **settings})
    box = FakeSandbox({"a.py": "x = 1\n"}, {LIST: "a.py\n"})
    script = policy or ScriptedPolicy(answers)
    (found,) = predict([TASK], script, config, Run(path), open_box=lambda task: box)
    return found, Run(path).read("candidates.jsonl", Candidate)


def test_the_patch_that_was_made_most_often_is_handed_in_and_all_are_kept(tmp_path):
    found, candidates = agentless(tmp_path, ["a.py", edit("3"), edit("2"), "no", edit("2  ")])
    assert "+x = 2\n" in found.patch
    assert [(item.sample, item.exit_status, item.chosen) for item in candidates] == [
        (0, "edited", False), (1, "edited", True), (2, "malformed", False), (3, "edited", False),
    ]  # fmt: skip
    assert (found.num_turns, found.num_malformed, found.num_edits, found.num_edits_applied) == (5, 1, 3, 3)
    assert found.exit_status == "edited"


def test_each_sample_is_tried_on_the_files_as_they_were(tmp_path):
    _, candidates = agentless(tmp_path, ["a.py", *(edit(str(number)) for number in range(2, 6))])
    assert ["-x = 1\n" in item.patch for item in candidates] == [True] * 4


def test_edits_that_fit_nowhere_and_edits_of_nothing_are_told_apart(tmp_path):
    wrong = f"### a.py\n{START}\ny\n=======\nz\n>>>>>>> REPLACE"
    found, candidates = agentless(tmp_path, ["a.py", wrong, edit("1"), wrong, wrong])
    assert [item.exit_status for item in candidates] == ["not_applied", "no_change", "not_applied", "not_applied"]
    assert (found.patch, found.exit_status, found.num_edits, found.num_edits_applied) == ("", "not_applied", 4, 1)


def test_a_limit_in_money_ends_an_attempt_before_its_patches_are_asked_for(tmp_path):
    class Dear(ScriptedPolicy):
        def _answer(self, prompt: list[Message], sampling) -> Completion:  # type: ignore[override]
            return super()._answer(prompt, sampling).model_copy(update={"cost_usd": 0.3})

    policy = Dear(["a.py"])
    found, candidates = agentless(tmp_path, [], policy=policy, limits={"max_usd": 0.25})
    assert (found.exit_status, found.patch, found.usage.cost_usd) == ("cost_limit", "", 0.3)
    assert (len(policy.calls), candidates) == (1, [])


def test_a_budget_that_holds_no_file_is_an_outcome_that_asks_for_nothing(tmp_path):
    policy = ScriptedPolicy([])
    long = TASK.model_copy(update={"problem_statement": "mend x " * 1000})
    for mode in ("oracle", "agentless"):
        config, box = mode_config(mode, {"max_prompt_tokens": 512}), FakeSandbox({"a.py": "x\n"}, {LIST: "a.py\n"})
        (found,) = predict(
            [long],
            policy,
            config,
            Run(tmp_path / mode),
            gold_files={"a": ("a.py",)},
            open_box=lambda task, box=box: box,
        )
        assert (found.exit_status, found.infra_failure, policy.calls) == ("prompt_too_long", "", [])


@pytest.mark.parametrize("mode", ["oracle", "agentless"])
def test_an_endpoint_that_cannot_read_the_prompt_gives_no_malformed_answer(tmp_path, mode):
    class Short(ScriptedPolicy):
        def _answer(self, prompt: list[Message], sampling) -> Completion:  # type: ignore[override]
            return Completion(text="", finish_reason="prompt_too_long")

    box = FakeSandbox({"a.py": "x\n"}, {LIST: "a.py\n"})
    (found,) = predict(
        [TASK], Short([]), mode_config(mode), Run(tmp_path), gold_files={"a": ("a.py",)}, open_box=lambda task: box
    )
    assert (found.exit_status, found.num_malformed, found.num_turns) == ("prompt_too_long", 0, 1)


def test_what_was_cut_is_counted_in_the_prediction(tmp_path):
    config = mode_config("oracle", {"max_prompt_tokens": 700})
    box = FakeSandbox({"a.py": "x = 1\n" + "y = 2222222\n" * 2000})
    policy = ScriptedPolicy([edit("2")])
    (found,) = predict([TASK], policy, config, Run(tmp_path), gold_files={"a": ("a.py",)}, open_box=lambda task: box)
    assert found.exit_status == "edited"
    assert found.num_tokens_cut > 6000
    (prompt,) = policy.calls[0][0]
    assert sum(len(message["content"]) for message in prompt) / 3 <= 700


def test_a_box_without_the_gold_patchs_files_is_a_failure_of_the_apparatus(tmp_path):
    config = mode_config("oracle")
    (found,) = predict(
        [TASK],
        ScriptedPolicy([]),
        config,
        Run(tmp_path),
        gold_files={"a": ("gone.py",)},
        open_box=lambda task: FakeSandbox(),
    )
    assert "holds none of the files that its gold patch changes (gone.py)" in found.infra_failure
