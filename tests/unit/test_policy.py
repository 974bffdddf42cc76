"""Tokens, attention, sampling and loading, with a tiny random student."""

import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")

from swe_srl.dialogue import Message, format_completion
from swe_srl.errors import ConfigError, EndpointError
from swe_srl.evaluation.modes import mode_config
from swe_srl.evaluation.predict import predict
from swe_srl.policy.base import Sampling
from swe_srl.policy.drafts import Continuations, Drafts
from swe_srl.policy.load import load_policy, load_student
from swe_srl.policy.pasts import SharedPasts
from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.tokens import LEFT_OUT, Codec
from swe_srl.policy.tree import TokenTree
from swe_srl.schema import Command, Task
from swe_srl.store import Run
from swe_srl.testing import FakeSandbox
from swe_srl.testing.tiny import tiny_student
from swe_srl.training.objective import Group

pytestmark = pytest.mark.torch

DIALOGUE = [
    Message(role="system", content="You fix issues."),
    Message(role="user", content="f(1) returns 3, it should be 2.\n"),
    Message(role="assistant", content="<function=bash>\n<parameter=command>ls</parameter>\n</function>"),
    Message(role="user", content="[exit 0]\na.py"),
]
ANSWER = format_completion("look", Command(tool="bash", arguments={"command": "cat a.py"}))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_student(tmp_path_factory.mktemp("student") / "tiny")


@pytest.fixture(scope="module")
def student(directory):
    return load_student(str(directory), dtype="fp32", device="cpu")


def test_prompt_and_target_laid_end_to_end_are_the_chat_templates_ids(student):
    codec = student.codec
    newline = codec.text_ids("\n")
    whole = codec.dialogue_ids([*DIALOGUE, Message(role="assistant", content=ANSWER)], answer_next=False)
    assert [*codec.prompt(DIALOGUE).ids, *codec.target(ANSWER), *newline] == whole
    assert codec.decode(codec.target(ANSWER)) == ANSWER


def test_the_papers_tokenizer_gives_the_same_ids_as_its_chat_template():
    from transformers import AutoTokenizer

    shared = Path(os.environ.get("SWE_SRL_SHARED", str(Path(__file__).parents[3] / "shared")))
    folder = shared / "data" / "tokenizers" / "qwen2.5-coder"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {folder}")
    codec = Codec(AutoTokenizer.from_pretrained(folder))
    whole = codec.dialogue_ids([*DIALOGUE, Message(role="assistant", content=ANSWER)], answer_next=False)
    assert [*codec.prompt(DIALOGUE).ids, *codec.target(ANSWER), *codec.text_ids("\n")] == whole
    assert codec.tokenizer.decode([codec.end_of_turn]) == "<|im_end|>"


@pytest.mark.parametrize(("budget", "most"), [(2000, 2000), (100_000, 4096 - 8)])
def test_a_prompt_with_files_keeps_its_budget_and_the_models_own_limit(student, tmp_path, budget, most):
    task = Task(task_id="a", repo="r", base_commit="c", problem_statement="f(1) returns 3", image="i")
    text = "".join(f"def f{number}(value):\n    return value + 1\n" for number in range(900))
    box = FakeSandbox({"a.py": text})
    config = mode_config("oracle", {"max_prompt_tokens": budget, "sampling": {"max_new_tokens": 8}})
    cut_before = student.num_prompts_cut
    (found,) = predict([task], student, config, Run(tmp_path), gold_files={"a": ("a.py",)}, open_box=lambda task: box)
    assert most - 160 <= found.usage.prompt_tokens <= most
    assert (found.infra_failure, found.exit_status, len(found.answer_tokens)) == ("", "malformed", 1)
    assert found.num_tokens_cut > student.count_tokens(text) - most
    assert student.num_prompts_cut == cut_before, "nothing is cut behind the mode's back"


def test_the_newline_after_the_end_of_a_turn_is_kept(student):
    ids = list(student.codec.prompt(DIALOGUE).ids)
    ends = [index for index, token in enumerate(ids) if token == student.codec.end_of_turn]
    assert len(ends) == len(DIALOGUE)
    assert all(ids[index + 1] == student.codec.text_ids("\n")[0] for index in ends)


@pytest.mark.parametrize("limit", [140, 100, 80, 60])
def test_a_prompt_that_is_too_long_is_cut_to_fit_and_keeps_system_prompt_and_head_of_the_issue(student, limit):
    long = [*DIALOGUE[:3], Message(role="user", content="first line\n" + "noise " * 200 + "last line")]
    prompt = student.codec.prompt(long, limit)
    text = student.codec.tokenizer.decode(prompt.ids)
    assert len(prompt.ids) <= limit
    assert prompt.num_tokens_cut == len(student.codec.prompt(long).ids) - len(prompt.ids)
    assert "You fix issues." in text
    assert "f(1" in text
    assert "first line" not in text
    assert text.endswith("<|im_start|>assistant\n")


def test_the_oldest_observation_is_cut_first(student):
    old = Message(role="user", content="old " * 100 + "old end")
    new = Message(role="user", content="new begin" + " new" * 20)
    messages = [*DIALOGUE[:3], old, DIALOGUE[2], new]
    full = len(student.codec.prompt(messages).ids)
    text = student.codec.tokenizer.decode(student.codec.prompt(messages, full - 50).ids)
    assert "new begin" + " new" * 20 in text
    assert LEFT_OUT in text
    assert "old end" in text


def test_a_limit_below_the_system_prompt_is_an_error(student):
    with pytest.raises(ConfigError, match="max_prompt_tokens"):
        student.codec.prompt(DIALOGUE, 10)


def groups(student, *lengths):
    generator = torch.Generator().manual_seed(1)

    def ids(count):
        return tuple(torch.randint(3, len(student.codec.tokenizer), (count,), generator=generator).tolist())

    return [
        Group(str(index), ids(prompt), tuple(ids(count) for count in answers))
        for index, (prompt, answers) in enumerate(lengths)
    ]


def test_log_probs_equal_those_of_the_models_own_forward_pass(student, directory):
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    group = groups(student, (20, (6,)))[0]
    ids = torch.tensor([[*group.prompt_ids, *group.completions[0]]])
    with torch.no_grad():
        expected = (
            reference(ids).logits[0, 19:-1].log_softmax(-1).gather(1, torch.tensor(group.completions[0])[:, None])[:, 0]
        )
        got = token_log_probs(student.model, TokenTree([group]).row())
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_chunked_logits_change_nothing(student, monkeypatch):
    row = TokenTree(groups(student, (20, (6, 7)))).row()
    whole = token_log_probs(student.model, row)
    monkeypatch.setattr("swe_srl.policy.scoring.LOGIT_CHUNK", 4)
    torch.testing.assert_close(token_log_probs(student.model, row), whole, rtol=1e-6, atol=1e-6)


def test_greedy_answers_equal_transformers_own_generate(student, directory):
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    prompts = [student.codec.prompt(DIALOGUE[:2]).ids, student.codec.prompt(DIALOGUE).ids]
    answers = student.complete_ids(prompts, Sampling(max_new_tokens=12, stop=""))
    for ids, (answer,) in zip(prompts, answers, strict=True):
        tensor = torch.tensor([ids])
        expected = reference.generate(
            tensor, attention_mask=torch.ones_like(tensor), max_new_tokens=12, do_sample=False
        )[0, len(ids) :]
        assert list(answer.token_ids) == expected.tolist()


def test_sampled_log_probs_are_those_the_trainer_computes(student):
    sampling = Sampling(temperature=0.7, max_new_tokens=9, seed=3)
    prompts = [student.codec.prompt(DIALOGUE[:2]).ids, student.codec.prompt(DIALOGUE).ids]
    for ids, answers in zip(prompts, student.complete_ids(prompts, sampling, num_samples=3), strict=True):
        group = Group("x", ids, tuple(answer.token_ids for answer in answers))
        with torch.no_grad():
            scored = token_log_probs(student.model, TokenTree([group]).row(), temperature=0.7)
        told = torch.tensor([value for answer in answers for value in answer.log_probs])
        torch.testing.assert_close(scored, told, rtol=1e-4, atol=1e-4)


def test_what_an_earlier_call_has_read_changes_no_answer(student, directory):
    """Turn by turn the prompts go on where they ended, another branches off; each answer is that of a fresh policy."""
    base = student.codec.prompt(DIALOGUE).ids * 3
    calls = [
        [base[:150], base[:100]],
        [base[:150] + base[:40], base[:150] + base[60:90]],
        [base[:150] + base[:40] + base[5:9], base[:70], base[:150]],
    ]
    sampling = Sampling(temperature=1.0, max_new_tokens=6, seed=5, stop="")
    student.forget()
    for prompts in calls:
        fresh = load_student(str(directory), dtype="fp32", device="cpu")
        expected = fresh.complete_ids(prompts, sampling, num_samples=2)
        got = student.complete_ids(prompts, sampling, num_samples=2)
        for ours, theirs in zip(got, expected, strict=True):
            assert [a.token_ids for a in ours] == [a.token_ids for a in theirs]
            for answer, reference in zip(ours, theirs, strict=True):
                assert answer.log_probs == pytest.approx(reference.log_probs, abs=1e-4)


def test_rows_that_have_a_prompt_each_say_the_same_as_alone(student):
    """Side by side they are padded, and those that stop early leave the batch: nothing of it shows."""
    base = student.codec.prompt(DIALOGUE).ids * 3
    prompts = [base[:length] for length in (40, 150, 90, 61, 120, 7, 33)]
    sampling = Sampling(temperature=1.3, max_new_tokens=25, seed=2, stop="")
    student._eos, before = set(range(0, len(student.codec.tokenizer), 9)), student._eos
    try:
        together = student.complete_ids(prompts, sampling)
        lengths = set()
        for prompt, (answer,) in zip(prompts, together, strict=True):
            [[alone]] = student.complete_ids([prompt], sampling)
            assert answer.token_ids == alone.token_ids
            assert answer.log_probs == pytest.approx(alone.log_probs, abs=1e-4)
            lengths.add(answer.num_tokens)
        assert len(lengths) > 3
    finally:
        student._eos = before


@pytest.mark.parametrize("chunk", [16, 40, 512])
def test_what_prompts_share_is_read_for_all_their_rows_at_once(student, monkeypatch, chunk):
    """A trajectory's prompts, one of another trajectory of its task, one of another task: each as if it were alone."""
    base = student.codec.prompt(DIALOGUE).ids * 3
    other = student.codec.prompt(DIALOGUE[2:]).ids * 3
    prompts = [base[:90], base[:150], base[:60] + other[:50], base[:40], other[:70], base[:120], base[:60] + other[:80]]
    sampling = Sampling(temperature=1.3, max_new_tokens=25, seed=2, stop="")
    monkeypatch.setattr("swe_srl.policy.pasts.CHUNK", chunk)
    monkeypatch.setattr(student, "_eos", set(range(0, len(student.codec.tokenizer), 9)))
    student.forget()
    together = student.complete_ids(prompts, sampling, num_samples=3)
    lengths = set()
    for prompt, answers in zip(prompts, together, strict=True):
        student.forget()
        [alone] = student.complete_ids([prompt], sampling, num_samples=3)
        for ours, reference in zip(answers, alone, strict=True):
            assert ours.token_ids == reference.token_ids
            assert ours.log_probs == pytest.approx(reference.log_probs, abs=1e-4)
            lengths.add(ours.num_tokens)
    assert len(lengths) > 5


def test_the_prompts_of_a_trajectory_are_sampled_from_without_a_copy_of_their_keys(student):
    ids = student.codec.prompt(DIALOGUE).ids * 3
    prompts = [ids[:length] for length in (40, 80, 120, 160)]
    student.forget()
    ends, _ = student._cache.read(prompts)
    held = {layer[0].keys.untyped_storage().data_ptr() for layer in student._cache._layers}
    pasts = SharedPasts(student._cache, [end for end in ends for _ in range(3)])
    seen = [
        piece.past(layer).keys for piece in pasts._pieces for layer in range(student.model.config.num_hidden_layers)
    ]
    assert {keys.untyped_storage().data_ptr() for keys in seen} == held


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("temperature", [0.0, 0.05, 1.0])
def test_guessing_what_comes_next_changes_no_answer(student, monkeypatch, temperature, num_samples):
    base = student.codec.prompt(DIALOGUE).ids * 3
    prompts = [base[:length] for length in (40, 150, 90, 7, 133)]
    sampling = Sampling(temperature=temperature, max_new_tokens=40, seed=4, stop="")
    monkeypatch.setattr(student, "_eos", set(range(0, len(student.codec.tokenizer), 40)))
    calls, forward = [], student.model.base_model.forward
    monkeypatch.setattr(student.model.base_model, "forward", lambda **given: calls.append(1) or forward(**given))
    written = []
    for max_guessed in (0, 6):
        monkeypatch.setattr("swe_srl.policy.sampler.MAX_GUESSED", max_guessed)
        student.forget()
        calls.clear()
        answers = student.complete_ids(prompts, sampling, num_samples=num_samples)
        written.append([answer for of_prompt in answers for answer in of_prompt])
        num_calls = len(calls)
    plain, guessed = written
    assert [a.token_ids for a in guessed] == [a.token_ids for a in plain]
    assert [a.finish_reason for a in guessed] == [a.finish_reason for a in plain]
    for ours, theirs in zip(guessed, plain, strict=True):
        assert ours.log_probs == pytest.approx(theirs.log_probs, abs=1e-4)
    longest = max(answer.num_tokens for answer in plain)
    if temperature < 1.0:  # a random student that is sure of itself repeats itself
        assert num_calls < 0.6 * longest


def test_guesses_are_what_followed_the_same_tokens_before():
    said = Continuations()
    drafts = Drafts([[1, 2, 3, 4, 5, 6, 7, 8], [50, 51, 52, 53]], said)
    assert drafts.guess(0, [9, 2, 3], 3) == [4, 5, 6]
    assert drafts.guess(0, [9, 2, 3], 1) == [4]
    assert drafts.guess(0, [9, 2, 3], 0) == []
    assert drafts.guess(1, [9, 2, 3], 3) == []
    drafts.learn(0, [9, 2, 3], 3)
    assert drafts.guess(0, [8, 9], 2) == [2, 3]  # an answer's beginning, behind the end of its prompt
    drafts.learn(0, [9, 2, 3, 70, 71], 2)
    assert drafts.guess(1, [2, 3], 2) == [70, 71]  # what another answer said
    assert drafts.guess(0, [8, 9, 2, 3], 1) == [70]  # the newest
    assert drafts.guess(0, [1, 2, 3], 1) == [70]
    longer = Drafts([[1, 2, 3, 4, 5, 6, 0, 4, 5, 7]], Continuations())
    assert longer.guess(0, [1, 2, 3, 4, 5], 1) == [6]  # the longer run says more than the newer
    assert longer.guess(0, [9, 4, 5], 1) == [7]


def test_prompts_are_read_once_and_forgotten_when_there_is_no_room(student, monkeypatch):
    base = student.codec.prompt(DIALOGUE).ids * 3
    reads = []
    forward = student.model.base_model.forward

    def counted(*args, **options):
        reads.append(options["input_ids"].numel())
        return forward(*args, **options)

    monkeypatch.setattr(student.model.base_model, "forward", counted)
    sampling = Sampling(max_new_tokens=1, stop="")
    student.forget()
    student.complete_ids([base[:150], base[:120]], sampling)
    student.complete_ids([base[:200], base[:150]], sampling)
    assert reads == [150, 50]
    monkeypatch.setattr(student._cache, "_max_tokens", 199)
    student.complete_ids([base[:200]], sampling)
    assert reads == [150, 50, 200]
    student.forget()
    student.complete_ids([base[:30]], sampling)
    assert reads[-1] == 30


def test_a_sample_does_not_depend_on_what_else_is_in_the_batch(student):
    sampling = Sampling(temperature=1.0, max_new_tokens=10, seed=5)
    first, second = student.codec.prompt(DIALOGUE[:2]).ids, student.codec.prompt(DIALOGUE).ids
    alone = student.complete_ids([second], sampling, num_samples=2)[0]
    together = student.complete_ids([first, second], sampling, num_samples=4)[1]
    assert [a.token_ids for a in alone] == [a.token_ids for a in together[:2]]
    assert len({answer.token_ids for answer in together}) == 4
    twice = student.complete_ids([second, second], sampling)
    assert twice[0][0].token_ids == alone[0].token_ids != twice[1][0].token_ids


def test_samples_follow_the_models_distribution(student):
    from swe_srl.policy.sampler import choose

    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(20000, 4)
    draws = torch.rand(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids, log_probs = choose(logits, draws, Sampling(temperature=2.0))
    expected = (logits[0] / 2).softmax(-1)
    torch.testing.assert_close(torch.bincount(ids, minlength=4) / 20000, expected, atol=0.015, rtol=0)
    torch.testing.assert_close(log_probs, expected.log()[ids])
    nucleus, _ = choose(logits, draws, Sampling(temperature=1.0, top_p=0.6))
    assert set(nucleus.tolist()) == {2}


def test_a_draw_finds_its_token_in_a_large_vocabulary():
    from swe_srl.policy.sampler import choose

    logits = torch.randn(300, 5003, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, 100:3000] = float("-inf")
    draws = torch.rand(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draws[:3] = torch.tensor([0.0, 1.0 - 1e-16, 0.5], dtype=torch.float64)
    ids, log_probs = choose(logits, draws, Sampling(temperature=1.0))
    running = logits.double().softmax(-1).cumsum(-1)
    before = torch.where(ids > 0, running.gather(1, (ids - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    assert (before <= draws + 1e-6).all()
    assert (running.gather(1, ids[:, None])[:, 0] >= draws - 1e-6).all()
    assert log_probs.isfinite().all()


def test_an_answer_stops_after_the_stop_text_or_at_the_end_of_the_turn(student):
    codec = student.codec
    stop = student._stopper("</function>")
    ids = codec.text_ids(ANSWER)
    assert stop(ids)
    assert not any(stop(ids[:count]) for count in range(1, len(ids)))
    assert stop([*ids[:4], codec.end_of_turn])


def test_more_rows_than_one_batch_holds_give_the_same_answers(student, monkeypatch):
    sampling = Sampling(temperature=1.0, max_new_tokens=4, seed=1)
    prompts = [student.codec.prompt(DIALOGUE[: 2 + 2 * (index % 2)]).ids for index in range(5)]
    whole = student.complete_ids(prompts, sampling, num_samples=3)
    monkeypatch.setattr("swe_srl.policy.local.MAX_ROWS", 4)
    assert [[a.token_ids for a in row] for row in student.complete_ids(prompts, sampling, num_samples=3)] == [
        [a.token_ids for a in row] for row in whole
    ]


def test_a_directory_without_weights_is_one_sentence(tmp_path, directory):
    with pytest.raises(ConfigError, match="no model"):
        load_policy(str(tmp_path))
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    with pytest.raises(ConfigError, match="no weights"):
        load_policy(str(tmp_path))
    with pytest.raises(ConfigError, match="no directory"):
        load_policy(str(tmp_path / "nowhere"))


def test_a_hub_that_cannot_be_reached_is_the_apparatus_failing(monkeypatch):
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", _offline)
    with pytest.raises(EndpointError, match="hub"):
        load_policy("someone/some-model")


def _offline(*_args, **_options):
    raise OSError("We couldn't connect to the hub.\nAnd more.")


def test_an_endpoint_needs_a_model_name():
    with pytest.raises(ConfigError, match="--model"):
        load_policy("http://127.0.0.1:9/v1")
