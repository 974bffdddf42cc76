"""vLLM itself, with a tiny student on whatever it was built for: same ids, same log-probabilities, new weights after an update."""

import importlib.util

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")
if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs vLLM (docs/vllm.md)", allow_module_level=True)

from test_vllm import Stale, config, easy_reward, trainer  # noqa: F401 - a fixture

from swe_srl.dialogue import Message
from swe_srl.errors import SamplerError
from swe_srl.policy.base import Sampling
from swe_srl.policy.load import load_student
from swe_srl.policy.vllm import VllmConfig, VllmPolicy
from swe_srl.policy.vllm_engine import start
from swe_srl.testing.tiny import tiny_student
from swe_srl.training.objective import Group
from swe_srl.training.sampling import TOLERANCES, measured, weights_of

# What vLLM and its libraries warn of at import is not ours to mend.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    # vLLM's attention on a CPU wants heads of 32 and more.
    return tiny_student(tmp_path_factory.mktemp("student") / "tiny", width=128)


@pytest.fixture
def student(directory):
    return load_student(str(directory), dtype="fp32", device="cpu", max_prompt_tokens=400)


@pytest.fixture(scope="module")
def engine(directory):
    engine = start(str(directory), VllmConfig(kv_cache_gib=0.1), dtype="fp32", max_tokens=512)
    yield engine
    engine.close()


@pytest.fixture
def policy(engine, student):
    policy = VllmPolicy(engine, student.codec, "tiny", max_tokens=512, max_prompt_tokens=400)
    policy.update(weights_of(student.model))
    return policy


def group_of(ids):
    return Group("", ids, ())


def prompts(count):
    return [
        [
            Message(role="system", content="You fix issues."),
            Message(role="user", content=f"f({n}) is wrong. " * (n % 7 + 1)),
        ]
        for n in range(count)
    ]


def test_greedy_answers_are_the_students_own(policy, student):
    sampling = Sampling(max_new_tokens=16)
    ours, theirs = (each.complete(prompts(50), sampling) for each in (student, policy))
    for (a,), (b,) in zip(ours, theirs, strict=True):
        assert (a.token_ids, a.text, a.finish_reason, a.prompt_ids) == (
            b.token_ids,
            b.text,
            b.finish_reason,
            b.prompt_ids,
        )
        assert b.log_probs == pytest.approx(a.log_probs, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_that_the_trainer_computes(policy, student, directory, temperature):
    groups = [group_of(policy.prompt(messages).ids) for messages in prompts(6)]
    assert 0 < measured(policy, student, groups, config(directory), temperature=temperature).max < 1e-4


def test_the_same_call_gives_the_same_answers_and_no_two_rows_are_alike(policy):
    sampling = Sampling(temperature=1.0, max_new_tokens=16, seed=5)
    first = policy.complete([*prompts(3), prompts(1)[0]], sampling, num_samples=4)
    assert policy.complete([*prompts(3), prompts(1)[0]], sampling, num_samples=4) == first
    assert len({answer.token_ids for group in first for answer in group}) == 16


# With more prompts than one pass took, vLLM on a CPU read one of them in two passes and failed, as its rows had seeds.
def test_more_prompts_than_fit_into_one_pass_are_all_answered(policy):
    many = [tuple(range(3 + n, 203 + n)) for n in range(60)]
    answers = policy.complete_ids(many, Sampling(temperature=1.0, max_new_tokens=4, seed=1))
    assert all(len(answer.token_ids) in range(1, 5) for (answer,) in answers)


def test_an_answer_stops_at_the_text_of_the_student(policy, student):
    drawn = Sampling(temperature=1.0, max_new_tokens=24, seed=2, stop="")
    (long,) = policy.complete(prompts(1), drawn)[0]
    pieces = [student.codec.decode([token]) for token in long.token_ids]
    stop = next(piece for piece in pieces[3:-1] if piece.isascii() and piece.strip())
    (short,) = policy.complete(prompts(1), drawn.model_copy(update={"stop": stop}))[0]
    first = next(count for count in range(1, 25) if stop in student.codec.decode(long.token_ids[:count]))
    assert (short.token_ids, short.finish_reason) == (long.token_ids[:first], "stop")
    assert short.text.endswith(stop)


def test_an_answer_stops_at_the_ids_of_the_student(policy, student):
    drawn = Sampling(temperature=2.0, max_new_tokens=200, seed=2)
    answers = policy.complete(prompts(1), drawn, num_samples=16)[0]
    ended = [answer for answer in answers if answer.finish_reason == "stop"]
    assert ended
    assert all(answer.token_ids.index(student.codec.end_of_turn) == answer.num_tokens - 1 for answer in ended)
    assert all(student.codec.end_of_turn not in answer.token_ids for answer in answers if answer not in ended)


def test_log_probs_of_a_nucleus_are_not_told(policy):
    (answer,) = policy.complete(prompts(1), Sampling(temperature=1.0, top_p=0.5, max_new_tokens=4))[0]
    assert (len(answer.token_ids), answer.log_probs) == (4, ())


@pytest.mark.parametrize("part", ["embed_tokens", "self_attn", "mlp", "norm"])
def test_new_weights_are_sampled_from(policy, student, directory, part):
    groups = [group_of(policy.prompt(messages).ids) for messages in prompts(3)]
    for name, parameter in student.model.named_parameters():
        if part in name:
            parameter.data.mul_(1.5)
    assert measured(policy, student, groups, config(directory), temperature=1.0).mean > 1e-4
    policy.update(weights_of(student.model))
    assert measured(policy, student, groups, config(directory), temperature=1.0).mean < 1e-5


@pytest.mark.usefixtures("easy_reward")
def test_a_run_that_tells_the_engine_the_new_weights_goes_on(policy, student, directory):
    run = trainer(config(directory), student, policy)
    assert all(0 < run.update(number).sampler_gap_mean < TOLERANCES["fp32"] / 10 for number in (1, 2))


@pytest.mark.usefixtures("easy_reward")
def test_a_run_that_does_not_ends_in_one_sentence(engine, student, directory):
    engine.load(weights_of(student.model))
    stale = Stale(engine, student.codec, "tiny", max_tokens=512, max_prompt_tokens=400)
    with pytest.raises(SamplerError, match=r"^after update 1: .*sampler\.type") as caught:
        trainer(config(directory), student, stale).update(1)
    assert "\n" not in str(caught.value)
