"""Tokens, attention, sampling and loading, with a tiny random student."""

import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")

from swe_srl.dialogue import Message, format_completion
from swe_srl.errors import ConfigError, EndpointError
from swe_srl.policy.attention import blockwise, dense
from swe_srl.policy.base import Sampling
from swe_srl.policy.load import load_policy, load_student
from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.tokens import LEFT_OUT, Codec
from swe_srl.policy.tree import Forest, TokenTree, micro_batches, num_plain_tokens
from swe_srl.schema import Command
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


def ids_of(count, seed):
    return tuple(torch.randint(3, 900, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def trajectory(num_steps, group_size, *, seed=0, round_tokens=70, answer_tokens=9):
    """Groups at every step of one trajectory with its whole history; the answers' lengths differ."""
    history = ids_of(40 + num_steps * round_tokens, seed)
    return [
        Group(
            f"{seed}/{step}",
            history[: 40 + step * round_tokens],
            tuple(ids_of(1 + (step + 3 * i) % answer_tokens, 1000 * seed + 10 * step + i) for i in range(group_size)),
        )
        for step in range(num_steps)
    ]


def windows(num_steps, group_size, seed=0):
    """As `trajectory`, with a window: below the shared issue, each step has a middle of its own."""
    issue = ids_of(60, seed)
    return [
        Group(
            f"w{step}",
            (*issue, *ids_of(50 + step, seed + step)),
            tuple(ids_of(4 + i, step + i) for i in range(group_size)),
        )
        for step in range(1, num_steps + 1)
    ]


BATCHES = {
    "one prompt, one answer": [Group("x", ids_of(20, 1), (ids_of(6, 2),))],
    "one prompt of one token": [Group("x", ids_of(1, 1), (ids_of(3, 2), ids_of(1, 3)))],
    "a whole trajectory": trajectory(5, 3),
    "two trajectories of one task": [
        *trajectory(3, 2),
        *(g._replace(prompt_ids=ids_of(180, 0)[:40] + g.prompt_ids[40:]) for g in trajectory(4, 2, seed=7)),
    ],
    "windows": windows(4, 3),
    "strangers": [*trajectory(2, 2, seed=1), *windows(2, 1, seed=2), *trajectory(1, 8, seed=3)],
    "the same prompt twice": [*trajectory(2, 2), *trajectory(2, 1)],
    "longer than SHORT": [
        Group("x", ids_of(600, 1), (ids_of(300, 2), ids_of(5, 3))),
        Group("y", ids_of(600, 1)[:550] + ids_of(30, 8), (ids_of(4, 9),)),
    ],
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_tree_unfolds_into_the_plain_sequences_it_was_built_from(batch):
    tree = TokenTree(batch)
    assert tree.unfold() == [(group.prompt_ids, answer) for group in batch for answer in group.completions]
    row = tree.row()
    assert row.input_ids.shape == row.position_ids.shape == (1, tree.num_tokens)
    assert row.targets.tolist() == [token for group in batch for answer in group.completions for token in answer]
    # what a token sees, read in order of position, is its own plain sequence up to itself
    mask = row.plan.mask("cpu")
    target = 0
    for prompt, answer in tree.unfold():
        for index in range(len(answer)):
            seen = mask[row.sources[target]].nonzero()[:, 0]
            by_position = seen[row.position_ids[0, seen].argsort()]
            assert row.input_ids[0, by_position].tolist() == [*prompt, *answer[:index]]
            assert row.position_ids[0, by_position].tolist() == list(range(len(prompt) + index))
            target += 1


def test_a_tree_holds_each_shared_history_once():
    batch = trajectory(7, 8)
    longest = max(len(group.prompt_ids) for group in batch)
    answers = sum(len(answer) for group in batch for answer in group.completions)
    assert TokenTree(batch).num_tokens == longest + answers
    assert num_plain_tokens(batch) == 8 * sum(len(group.prompt_ids) for group in batch) + answers
    assert len({tuple(g.prompt_ids[:60]) for g in windows(4, 1)}) == 1
    assert TokenTree(windows(4, 1)).num_tokens == 60 + sum(50 + step + 4 for step in range(1, 5))


def test_a_few_shared_tokens_are_not_worth_a_branch():
    forest = Forest()
    forest.add(ids_of(100, 1))
    end, growth = forest.add(ids_of(100, 1)[:10] + ids_of(50, 2))
    assert (growth.start, growth.stop) == (0, 60)
    assert forest.segments(*end) == [(1, 60)]
    end, growth = forest.add(ids_of(100, 1)[:50] + ids_of(50, 3))
    assert (growth.start, growth.stop) == (50, 100)
    assert forest.segments(*end) == [(2, 50), (0, 50)]


def test_a_prompt_that_goes_on_where_another_ended_makes_no_new_node():
    forest = Forest()
    for turn in range(1, 6):
        end, growth = forest.add(ids_of(500, 1)[: 100 * turn])
        assert (growth.start, growth.stop) == (100 * (turn - 1), 100 * turn)
    assert forest.segments(*end) == [(0, 500)]
    assert forest.add(ids_of(500, 1)[:150]) == ((0, 150), None)


def test_micro_batches_keep_to_the_budget_and_lose_no_group():
    batch = [*trajectory(6, 4), *windows(3, 2, seed=5), *trajectory(6, 4, seed=9)]
    for budget in (1, 150, 400, 10_000):
        parts = list(micro_batches(batch, budget))
        assert sorted(index for part in parts for index in part) == list(range(len(batch)))
        for part in parts:
            assert len(part) == 1 or TokenTree([batch[index] for index in part]).num_tokens <= budget
    assert [sorted(part) for part in micro_batches(batch, 10_000)] == [list(range(len(batch)))]


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_attention_node_by_node_equals_the_dense_mask(heads, batch):
    torch.manual_seed(0)
    plan = TokenTree(batch).row().plan
    tokens = plan.nodes[-1].stop
    query, key, value = (
        torch.randn(1, n, tokens, 16, dtype=torch.float64, requires_grad=True) for n in (heads[0], heads[1], heads[1])
    )
    weight = torch.randn(1, heads[0], tokens, 16, dtype=torch.float64)
    results = []
    for attention in (blockwise, dense):
        out = attention(query, key, value, plan, 0.25)
        results.append((out, *torch.autograd.grad((out * weight).sum(), (query, key, value))))
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11)


def groups(student, *lengths):
    generator = torch.Generator().manual_seed(1)

    def ids(count):
        return tuple(torch.randint(3, len(student.codec.tokenizer), (count,), generator=generator).tolist())

    return [
        Group(str(index), ids(prompt), tuple(ids(count) for count in answers))
        for index, (prompt, answers) in enumerate(lengths)
    ]


def within(batch, student):
    """`batch` with ids that the student's vocabulary has."""
    size = len(student.codec.tokenizer)

    def fold(ids):
        return tuple(token % size for token in ids)

    return [g._replace(prompt_ids=fold(g.prompt_ids), completions=tuple(map(fold, g.completions))) for g in batch]


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_loss_and_gradients_of_a_tree_equal_those_of_plain_sequences(student, batch):
    shared = within(batch, student)
    plain = [group._replace(completions=(answer,)) for group in shared for answer in group.completions]
    model = student.model
    weights = torch.randn(
        sum(len(answer) for group in plain for answer in group.completions), generator=torch.Generator().manual_seed(2)
    )
    found = []
    for batches in ([shared], [[group] for group in plain]):
        model.zero_grad()
        log_probs = torch.cat([token_log_probs(model, TokenTree(part).row()) for part in batches])
        (log_probs * weights).sum().backward()
        found.append((log_probs.detach(), [parameter.grad.clone() for parameter in model.parameters()]))
    model.zero_grad()
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


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
