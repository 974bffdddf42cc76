"""Sampling beside the trainer, with an engine of this test's own in vLLM's place: a second copy of a tiny student."""

import math
from collections import deque

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")

from swe_srl.dialogue import Message, format_completion
from swe_srl.errors import ConfigError, SamplerError
from swe_srl.policy.base import Sampling
from swe_srl.policy.load import load_student
from swe_srl.policy.vllm import Answer, VllmPolicy
from swe_srl.schema import Command, Fidelity, Reward, Step, Task
from swe_srl.settings import build
from swe_srl.testing import FakeSandbox
from swe_srl.testing.tiny import tiny_student
from swe_srl.training.attempts import Arena
from swe_srl.training.config import ObjectiveConfig, TrainConfig
from swe_srl.training.data import Cursor, Example
from swe_srl.training.loop import make_algorithm
from swe_srl.training.objective import Group, fresh, ratio_loss
from swe_srl.training.sampling import measured, open_sampler, weights_of
from swe_srl.training.trainer import Trainer

pytestmark = pytest.mark.torch

TASK = Task(task_id="toy-1", repo="toy", base_commit="0", problem_statement="f(1) is 3", image="toy")
PROMPTS = [
    [Message(role="system", content="You fix issues."), Message(role="user", content=f"f({n}) is wrong.")]
    for n in range(3)
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_student(tmp_path_factory.mktemp("student") / "tiny")


@pytest.fixture
def student(directory):
    return load_student(str(directory), dtype="fp32", device="cpu", max_prompt_tokens=400)


class Beside:
    """An engine with a copy of the weights."""

    def __init__(self, directory):
        self.policy = load_student(str(directory), dtype="fp32", device="cpu")
        self.said = []
        self.asked = []

    def generate(self, asks, sampling, stop_ids):
        self.said.append("generate")
        self.asked.append(list(asks))
        found = self.policy.complete_ids([ask.ids for ask in asks], sampling, seeds=[ask.seed for ask in asks])
        return [Answer(answer.token_ids, answer.log_probs) for (answer,) in found]

    def load(self, weights):
        self.said.append("load")
        self.policy.model.load_state_dict(dict(weights), strict=False)
        self.policy.forget()

    def sleep(self):
        self.said.append("sleep")

    def close(self):
        self.said.append("close")


class Scripted(Beside):
    """Answers with the same ids, whatever it is asked."""

    def __init__(self, ids):
        self.ids = tuple(ids)

    def generate(self, asks, sampling, stop_ids):
        return [Answer(self.ids, tuple(-0.1 * n for n in range(len(self.ids)))) for _ in asks]


def policy_of(engine, student, kind=VllmPolicy):
    return kind(engine, student.codec, "tiny", max_tokens=4096, max_prompt_tokens=400)


# --- answers


@pytest.mark.parametrize("behind", [" and more", "<|im_end|> and more"])
def test_an_answer_ends_with_the_token_that_the_students_own_would_end_with(student, behind):
    answer = format_completion("look", Command(tool="bash", arguments={"command": "ls"}))
    ids = student.codec.text_ids(answer)
    longer = [*ids, *student.codec.tokenizer.encode(behind)]
    (completion,) = policy_of(Scripted(longer), student).complete(PROMPTS[:1], Sampling(max_new_tokens=200))[0]
    assert (completion.token_ids, completion.finish_reason) == (tuple(ids), "stop")
    assert completion.text == answer
    assert len(completion.log_probs) == len(ids)


def test_an_answer_without_an_end_ran_into_its_limit(student):
    ids = student.codec.text_ids("<think>I look")
    (completion,) = policy_of(Scripted(ids), student).complete(PROMPTS[:1], Sampling(max_new_tokens=len(ids)))[0]
    assert (completion.token_ids, completion.finish_reason) == (tuple(ids), "length")
    (ended,) = policy_of(Scripted([*ids, student.codec.end_of_turn]), student).complete(PROMPTS[:1], Sampling())[0]
    assert (ended.token_ids[-1], ended.finish_reason, ended.text) == (
        student.codec.end_of_turn, "stop", "<think>I look",
    )  # fmt: skip


def test_answers_stand_in_the_order_of_their_prompts_and_what_begins_alike_is_asked_side_by_side(student, directory):
    engine = Beside(directory)
    policy = policy_of(engine, student)
    encoded = [policy.prompt(messages).ids for messages in PROMPTS]
    mixed = [encoded[0], encoded[2], encoded[1], encoded[0]]
    sampling = Sampling(temperature=1.0, max_new_tokens=6, seed=3)
    answers = policy.complete_ids(mixed, sampling, num_samples=2)
    assert [[answer.prompt_ids for answer in group] for group in answers] == [[ids] * 2 for ids in mixed]
    asked = [ask.ids for ask in engine.asked[0]]
    assert asked == sorted(asked)
    assert len({ask.seed for ask in engine.asked[0]}) == 8
    assert policy.complete_ids(mixed, sampling, num_samples=2) == answers
    alone = policy.complete_ids([encoded[2]], sampling, num_samples=2)
    assert [answer.token_ids for answer in alone[0]] == [answer.token_ids for answer in answers[1]]
    assert answers[0] != answers[3]


def test_greedy_answers_are_the_students_own(student, directory):
    sampling = Sampling(max_new_tokens=12)
    assert policy_of(Beside(directory), student).complete(PROMPTS, sampling) == student.complete(PROMPTS, sampling)


# --- the importance of a token


GROUP = Group("a", (1, 2), ((1, 2), (4,)), (1.0, -1.0), ((-1.0, -2.0), (-0.5,)))
WEIGHTS = torch.tensor([0.25, 0.25, 0.5])


def test_a_token_counts_by_how_much_likelier_the_trainer_finds_it_up_to_the_cap():
    group = fresh(GROUP, own=False, keep_old=False)
    log_probs = torch.tensor([-1.0 + math.log(1.5), -2.0 + math.log(4.0), -0.5 + math.log(0.5)], requires_grad=True)
    loss = ratio_loss(log_probs, [group], WEIGHTS, ObjectiveConfig(importance_cap=2.0))
    loss.value.backward()
    torch.testing.assert_close(
        log_probs.grad, -WEIGHTS * torch.tensor([1.5, 2.0, 0.5]) * torch.tensor([1.0, 1.0, -1.0])
    )
    found = loss.mismatch
    assert (found.num_tokens, found.num_truncated) == (3, 1)
    assert found.max == pytest.approx(math.log(4.0))
    assert found.mean == pytest.approx((math.log(1.5) + math.log(4.0) + math.log(2.0)) / 3)
    assert found.truncated_share == pytest.approx(1 / 3)


def test_what_the_student_itself_drew_is_not_corrected_by_a_bit():
    log_probs = torch.tensor([-1.1, -2.3, -0.4], requires_grad=True)
    group = fresh(GROUP, own=True, keep_old=False)
    assert group == GROUP._replace(old_log_probs=None)
    loss = ratio_loss(log_probs, [group], WEIGHTS, ObjectiveConfig())
    loss.value.backward()
    assert torch.equal(log_probs.grad, -WEIGHTS * torch.tensor([1.0, 1.0, -1.0]))
    assert loss.mismatch.num_tokens == 0


def test_a_ratio_against_the_sampler_is_not_corrected_again():
    log_probs = torch.tensor([-1.0, -2.0 + math.log(4.0), -0.5], requires_grad=True)
    config = ObjectiveConfig(old_log_probs="sampler")
    loss = ratio_loss(log_probs, [fresh(GROUP, own=False, keep_old=True)], WEIGHTS, config)
    alone = ratio_loss(log_probs, [GROUP], WEIGHTS, config)
    assert loss.value.item() == alone.value.item()
    assert loss.clip_share == alone.clip_share == pytest.approx(0.25)
    assert (loss.mismatch.num_tokens, loss.mismatch.num_truncated) == (3, 0)
    assert alone.mismatch.num_tokens == 0


# --- training


class Length:
    def __call__(self, completion, expert):
        return Reward(value=len(completion) / 100, parts={"well_formed": 1.0})


@pytest.fixture
def easy_reward(monkeypatch):
    from swe_srl.rewards import SimilarityConfig

    monkeypatch.setattr(SimilarityConfig, "build", lambda _self: Length())


def steps():
    def step(index):
        return Step(
            step_id=f"t/{index}", trajectory_id="t", task_id="toy-1", index=index, thought="", observation=f"content {index}", exit_code=0,
            command=Command(tool="bash", arguments={"command": f"cat file_{index}.py"}),
            fidelity=Fidelity(exit_code=True, output=1.0, tree=None, status="faithful"),
        )  # fmt: skip

    trajectory = tuple(step(index) for index in range(4))
    return [Example(item, TASK, trajectory) for item in trajectory]


def config(directory, **changes):
    table = {
        "model": str(directory), "tasks": "unused", "dtype": "fp32", "device": "cpu", "updates": 4, "max_new_tokens": 12, "max_prompt_tokens": 400,
        "optimizer": {"lr": 1e-2, "schedule": "constant"}, "sampler": {"type": "vllm"},
        "algorithm": {"type": "srl", "batch_size": 2, "group_size": 3, "min_reward_std": 0.001},
    }  # fmt: skip
    return build(TrainConfig, table | changes, "the test")


def trainer(settings, student, sampler, data=None, arena=None):
    data = data or steps()
    cursor = Cursor([str(index) for index in range(len(data))], 0)
    return Trainer(settings, student, sampler, make_algorithm(settings, data, sampler, arena), cursor, 4)


def test_a_sampler_that_is_told_the_new_weights_stays_the_student(student, directory, easy_reward):
    engine = Beside(directory)
    run = trainer(config(directory), student, policy_of(engine, student))
    metrics = [run.update(number) for number in (1, 2, 3)]
    assert all(0 < line.sampler_gap_mean < 1e-4 for line in metrics)
    assert all(line.sampler_gap_max >= line.sampler_gap_mean for line in metrics)
    assert all(line.truncated_share == 0 for line in metrics)
    for name, value in weights_of(student.model):
        assert torch.equal(engine.policy.model.state_dict()[name], value)
    assert 0 < metrics[0].num_prompts_cut <= metrics[2].num_prompts_cut


class Stale(VllmPolicy):
    """Keeps the weights with which it began."""

    def update(self, weights):
        pass


def test_a_sampler_with_old_weights_ends_the_run_after_the_first_update(student, directory, easy_reward):
    run = trainer(config(directory), student, policy_of(Beside(directory), student, Stale))
    with pytest.raises(
        SamplerError, match=r"^after update 1: sampler and trainer differ by \S+ nats .*local"
    ) as caught:
        run.update(1)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_a_sampler_that_falls_behind_little_by_little_is_found_out_by_its_batches(student, directory, easy_reward):
    settings = config(
        directory, optimizer={"lr": 3e-4, "schedule": "constant"}, sampler={"type": "vllm", "tolerance": 0.01}
    )
    run = trainer(settings, student, policy_of(Beside(directory), student, Stale))
    run.update(1)
    with pytest.raises(SamplerError, match=r"^before update \d+: .*tolerance 0\.01"):
        deque(map(run.update, range(2, 12)), maxlen=0)


def test_an_engine_sleeps_while_the_student_is_trained_and_wakes_with_its_weights(student, directory, easy_reward):
    engine = Beside(directory)
    run = trainer(config(directory), student, policy_of(engine, student))
    for number in (1, 2):
        run.update(number)
    words = [
        word for place, word in enumerate(engine.said) if word != "generate" or engine.said[place - 1] != "generate"
    ]
    assert words == ["generate", "sleep", "load", "generate", "sleep", "load"]


def test_episodes_are_drawn_by_the_sampler_and_corrected_too(student, directory):
    algorithm = {
        "type": "rlvr",
        "batch_size": 1,
        "group_size": 2,
        "limits": {"max_turns": 2},
        "dynamic_sampling": False,
    }
    settings = config(directory, algorithm=algorithm)
    arena = Arena(lambda task: FakeSandbox({"a.py": "x = 1\n"}), Judge())
    engine = Beside(directory)
    line = trainer(settings, student, policy_of(engine, student), [TASK, TASK], arena).update(1)
    assert 0 < line.sampler_gap_mean < 1e-4
    assert engine.said.count("generate") >= 2


class Judge:
    def __init__(self):
        self.num = 0

    def __call__(self, prediction):
        from swe_srl.schema import Verdict

        self.num += 1
        status = "resolved" if self.num % 2 else "unresolved"
        return Verdict(task_id=prediction.task_id, model="m", patch_digest=prediction.patch_digest, status=status)


def test_the_measure_sees_any_difference_in_weights(student, directory):
    engine = Beside(directory)
    sampler = policy_of(engine, student)
    groups = [Group("", sampler.prompt(messages).ids, ()) for messages in PROMPTS]
    assert measured(sampler, student, groups, config(directory), temperature=0.7).mean < 1e-5
    with torch.no_grad():
        engine.policy.model.model.norm.weight.mul_(1.5)
    found = measured(sampler, student, groups, config(directory), temperature=0.7)
    assert found.mean > 1e-3
    assert found.num_tokens <= 3 * 12


# --- config


@pytest.mark.parametrize(("changes", "what"), [({"top_p": 0.9}, "top_p = 1"), ({"temperature": 3.0}, "at most 2")])
def test_what_vllm_cannot_do_is_refused_before_anything_starts(directory, changes, what):
    algorithm = {"type": "srl"} | changes
    with pytest.raises(ConfigError, match=what):
        config(directory, algorithm=algorithm)
    assert config(directory, algorithm=algorithm, sampler={"type": "local"}).sampler.type == "local"


def test_the_student_samples_where_nothing_else_is_said_and_where_nothing_is_sampled(student, directory):
    assert open_sampler(config(directory, sampler={"type": "local"}), student) is student
    assert open_sampler(config(directory, algorithm={"type": "sft"}), student) is student


def test_one_of_several_processes_is_refused(student, directory, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun"):
        open_sampler(config(directory), student)


def test_a_policy_of_an_engine_ends_with_it(student, directory):
    engine = Beside(directory)
    policy_of(engine, student).close()
    assert engine.said == ["close"]
