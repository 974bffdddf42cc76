"""SRL by what answers do: the boxes are fakes; what broke is dropped, and is no answer's doing."""

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")

import toy

from swe_srl.benchmarks.load import load_tasks
from swe_srl.dialogue import format_completion
from swe_srl.errors import NothingToLearn, SandboxError
from swe_srl.policy.base import Completion
from swe_srl.policy.load import load_student
from swe_srl.schema import Command
from swe_srl.settings import build
from swe_srl.testing import FakeSandbox
from swe_srl.testing.tiny import tiny_student
from swe_srl.training import step_rewards as module
from swe_srl.training.algorithms.srl import Srl
from swe_srl.training.config import EffectRewardConfig, SrlConfig, TrainConfig
from swe_srl.training.data import Cursor, load_examples
from swe_srl.training.step_rewards import Answered, Done, Said, step_rewards

pytestmark = pytest.mark.torch

SAYS = {f"cat file_{index}.py": f"content {index}\n" for index in range(3)} | {
    f"head -99 file_{index}.py": f"content {index}\n" for index in range(3)
}


def bash(command):
    return format_completion("thought", Command(tool="bash", arguments={"command": command}))


@pytest.fixture
def examples(tmp_path):
    toy.write_toy(tmp_path, 3)
    return load_examples([tmp_path / "steps.jsonl"], load_tasks(tmp_path / "tasks.jsonl"), ("faithful",)).examples


@pytest.fixture
def boxes(monkeypatch):
    """Boxes in which a file reads the same by whatever command; a step whose number is in the list finds them broken."""
    broken: list[int] = []
    opened: list[str] = []

    def open_box(task, config, purpose):
        opened.append(f"{purpose} {task.task_id} {config.session}")
        if len(opened) in broken:
            raise SandboxError("gone")
        return FakeSandbox({"a.py": "x = 1\n"}, SAYS)

    monkeypatch.setattr(module, "open_task_box", open_box)
    return opened, broken


def answers_at(example):
    index = example.step.index
    return (bash(f"cat file_{index}.py"), bash(f"head -99 file_{index}.py"), bash("rm a.py"), "nothing to run")


def test_other_words_that_do_the_same_are_worth_the_same(examples, boxes):
    found = Done(EffectRewardConfig(sandbox={"session": "fresh"}))([Answered(one, answers_at(one)) for one in examples])
    assert len(found) == len(examples) == 6
    for rewarded in found:
        assert [reward.value for reward in rewarded.rewards[:2]] == [1.0, 1.0]
        assert rewarded.rewards[2].value < 1.0
        assert rewarded.rewards[3].value == -1.0
    said = Said(build(SrlConfig, {}, "test").reward.build())([Answered(one, answers_at(one)) for one in examples])
    assert all(rewarded.rewards[0].value == 1.0 > rewarded.rewards[1].value for rewarded in said)
    assert set(boxes[0]) == {"effect toy-1 fresh"}


def test_where_a_box_breaks_the_group_has_no_rewards_and_the_others_have_theirs(examples, boxes):
    boxes[1].append(1)
    first, *rest = Done(EffectRewardConfig(workers=1))([Answered(one, answers_at(one)) for one in examples[:3]])
    assert first.rewards == ()
    assert isinstance(first.failure, SandboxError)
    assert [len(rewarded.rewards) for rewarded in rest] == [4, 4]


def test_the_reward_is_chosen_by_its_name():
    chosen = build(SrlConfig, {"reward": {"type": "effect", "workers": 2, "exit_share": 0.5}}, "test").reward
    assert isinstance(step_rewards(chosen), Done)
    assert (chosen.workers, chosen.exit_share) == (2, 0.5)
    assert isinstance(step_rewards(build(SrlConfig, {"reward": {"type": "structured"}}, "test").reward), Said)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return tiny_student(tmp_path_factory.mktemp("student") / "tiny")


def srl(student, examples, **settings):
    algorithm = {"type": "srl", "batch_size": 3, "group_size": 4, "max_rounds": 2, "reward": {"type": "effect", "workers": 1}}  # fmt: skip
    table = {"model": str(student), "tasks": "unused", "dtype": "fp32", "device": "cpu", "updates": 1, "max_new_tokens": 8, "max_prompt_tokens": 400}  # fmt: skip
    config = TrainConfig.model_validate(table | {"algorithm": algorithm | settings})
    policy = load_student(str(student), dtype="fp32", device="cpu", max_prompt_tokens=400)
    by_prompt = {policy.prompt(one.messages(config.context), max_new_tokens=8).ids: one for one in examples}

    def says(prompts, _sampling, num_samples):
        assert num_samples == 4
        return [
            [Completion(text=text, prompt_ids=ids, token_ids=(5, 6), log_probs=(-1.0, -1.0)) for text in answers_at(by_prompt[ids])]
            for ids in prompts
        ]  # fmt: skip

    policy.complete_ids = says
    cursor = Cursor([example.step.trajectory_id for example in examples], 0)
    return Srl(config.algorithm, config, examples, policy).collect(cursor, 1)


def test_an_update_learns_from_what_answers_did(student, examples, boxes):
    batch = srl(student, examples)
    assert len(batch.groups) == 3
    for group in batch.groups:
        same, other, removed, unread = group.advantages
        assert same == other > removed > unread
    assert batch.metrics["well_formed"] == 0.75
    assert batch.metrics["commonest_action"] == 3 / 12, "one of four answers does the same at each of three steps"


def test_a_group_whose_box_broke_is_thrown_away_counted_and_another_taken(student, examples, boxes):
    boxes[1].append(1)
    batch = srl(student, examples)
    assert len(batch.groups) == 3
    assert batch.metrics["groups_thrown"] == {"boxes broke": 1}
    assert batch.metrics["reward_mean"] < 1.0
    assert batch.metrics["commonest_action"] == 3 / 12, "what was not tried is not counted"


@pytest.mark.parametrize("dynamic", [True, False])
def test_where_every_box_breaks_that_is_the_apparatus_and_not_the_student(student, examples, boxes, dynamic):
    boxes[1].extend(range(1, 99))
    with pytest.raises(SandboxError, match="could the answers be tried: gone; see `swe-srl doctor`") as caught:
        srl(student, examples, dynamic_sampling=dynamic)
    assert not isinstance(caught.value, NothingToLearn)
