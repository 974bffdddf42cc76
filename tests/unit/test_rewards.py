import difflib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from swe_srl.dialogue import format_action, format_completion
from swe_srl.errors import ConfigError, FormatError
from swe_srl.rewards import SimilarityConfig, reward_config, similarity
from swe_srl.rewards.pairs import Pair, read_pairs, score
from swe_srl.schema import Command

LS = Command(tool="bash", arguments={"command": "ls -la"})
SUBMIT = Command(tool="submit")
words = st.text(alphabet="ab \n<é漢🙂\ud800", max_size=300)


@given(words, words, st.booleans())
def test_similarity_equals_difflib(student, expert, autojunk):
    expected = difflib.SequenceMatcher(None, student, expert, autojunk=autojunk).ratio()
    assert similarity(student, expert, autojunk=autojunk) == expected


def test_similarity_is_asked_with_the_student_first():
    student, expert = "qabxcd", "abycdabycdtab"
    assert difflib.SequenceMatcher(None, "tide", "diet").ratio() == 0.25
    assert difflib.SequenceMatcher(None, "diet", "tide").ratio() == 0.5
    assert similarity("tide", "diet") == 0.25
    assert similarity(student, expert) == difflib.SequenceMatcher(None, student, expert, autojunk=False).ratio()


def test_a_long_command_with_one_letter_changed_per_line_scores_high_unless_autojunk_is_asked_for():
    line = "sed -i 's/alpha/beta/' src/module_{}.py && echo ok\n"
    expert = Command(tool="bash", arguments={"command": "".join(line.format("a") for _ in range(9))})
    student = Command(tool="bash", arguments={"command": "".join(line.format("b") for _ in range(9))})
    completion = format_completion("x", student)
    assert SimilarityConfig().build()(completion, expert).value > 0.95
    assert SimilarityConfig(autojunk=True).build()(completion, expert).value < 0.5


def test_the_reward_is_on_the_action_and_never_on_the_thinking():
    reward = SimilarityConfig().build()
    assert reward(format_completion("short", LS), LS).value == 1.0
    assert reward(format_completion("a quite different and long thought", LS), LS).value == 1.0
    assert 0.0 < reward(format_completion("short", SUBMIT), LS).value < 1.0


@pytest.mark.parametrize(
    "completion", ["", "ls -la", "<think>x</think> ls -la", format_action(LS), format_completion("x", LS) + " and more"]
)
def test_what_does_not_parse_gets_the_unparsed_reward_and_a_reason(completion):
    assert SimilarityConfig().build()(completion, LS).value == -1.0
    reward = SimilarityConfig(unparsed_reward=-0.5).build()(completion, LS)
    assert reward.value == -0.5
    assert reward.note
    assert reward.parts == {"well_formed": 0.0}


def test_an_unknown_reward_is_named_beside_the_known_ones():
    with pytest.raises(ConfigError, match=r"'exact'.*similarity"):
        reward_config("exact")


def test_pairs_are_compared_as_what_the_expert_wrote():
    config = SimilarityConfig()
    whole, bare = format_completion("t", LS), format_action(LS)
    assert score(Pair(whole, whole), config).value == 1.0
    assert score(Pair(bare, whole), config).value == -1.0
    assert score(Pair(bare, bare), config).value == 1.0
    assert score(Pair(whole, bare), config).value == 1.0
    assert score(Pair("ls", bare), config).value == -1.0
    assert score(Pair("abcd", "bcde"), config).value == 0.75


def test_a_malformed_pair_names_file_and_line(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"student": "a", "expert": "b"}\n{"student": "a"}\n')
    with pytest.raises(FormatError, match=r"pairs\.jsonl, line 2: 'expert'"):
        list(read_pairs(file))


def test_the_verb_writes_one_value_per_line(tmp_path):
    from swe_srl.cli import app

    file, out = tmp_path / "pairs.jsonl", tmp_path / "rewards.jsonl"
    file.write_text('{"student": "abcd", "expert": "bcde"}\n{"student": "x", "expert": "x"}\n')
    result = CliRunner().invoke(app, ["reward", str(file), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["value"] for line in out.read_text().splitlines()] == [0.75, 1.0]
    assert CliRunner().invoke(app, ["reward", str(file), "--set", "colour=blue"]).exit_code != 0
