"""One of several patches is chosen by the patches alone."""

from __future__ import annotations

import pytest

from swe_srl.errors import ConfigError
from swe_srl.rewards.choose import chooser, same_patch


def patch(*lines: str, index: str = "1111111..2222222", place: str = "-1 +1") -> str:
    changed = "".join(f"{line}\n" for line in lines)
    return f"diff --git a/a.py b/a.py\nindex {index} 100644\n--- a/a.py\n+++ b/a.py\n@@ {place} @@\n{changed}"


A, B, C = patch("-x", "+y = 1"), patch("-x", "+z = 2"), patch("-x", "+y = 1 + 0")


def test_the_patch_with_most_votes_wins_and_of_equals_the_first():
    votes = chooser("votes")
    assert votes([B, A, A]) == 1
    assert votes([B, A]) == 0
    assert votes(["", "", A]) == 2, "no patch is no vote"
    assert votes(["", ""]) == 0


def test_patches_count_as_the_same_whatever_white_space_and_comments_they_add():
    other = patch("-x", "+", "+# why", "+y = 1  ", index="1111111..3333333", place="-1 +1,3")
    assert same_patch(other) == same_patch(A) != same_patch(B)
    assert chooser("votes")([B, A, other]) == 1


@pytest.mark.parametrize("reward", ["patch", "similarity"])
def test_by_a_reward_the_patch_most_like_the_others_wins(reward):
    assert chooser(reward)([B, A, C]) in (1, 2)
    assert chooser(reward)([B, A, A]) == 1
    assert chooser(reward)(["", B]) == 1
    assert chooser(reward)(["", ""]) == 0


def test_a_patch_that_cannot_be_read_is_like_none_and_ends_nothing():
    assert chooser("patch")(["rubbish", B, "more rubbish", B]) == 1
    assert chooser("patch")(["rubbish", "more rubbish"]) == 0


def test_the_first_is_chosen_where_nothing_else_is_asked():
    assert chooser("first")([B, A, A]) == 0


@pytest.mark.parametrize(
    ("name", "words"), [("best", "no way 'best' to choose"), ("structured", "compares actions, not patches")]
)
def test_a_way_that_does_not_exist_or_fit_is_one_sentence(name, words):
    with pytest.raises(ConfigError, match=words):
        chooser(name)
