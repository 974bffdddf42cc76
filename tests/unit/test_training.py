"""Data, selection, objective, and runs of a tiny random student: fp32 on CPU, so that equal means equal."""

import json
import math

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")

from swe_srl.dialogue import ContextConfig
from swe_srl.errors import ConfigError, FormatError, UnknownTask, UserError
from swe_srl.schema import Command, Fidelity, Reward, Step, StepAgreement, Task
from swe_srl.settings import PRESETS, load, read_toml
from swe_srl.store import Appender, Run
from swe_srl.testing.tiny import tiny_student
from swe_srl.training.config import DifficultyConfig, ObjectiveConfig, OptimizerConfig, TrainConfig
from swe_srl.training.data import Cursor, load_examples
from swe_srl.training.difficulty import choose
from swe_srl.training.objective import Group, cross_entropy, group_advantages, per_token, policy_gradient, token_weights
from swe_srl.training.optimizer import MasterOptimizer, learning_rate
from swe_srl.training.selection import Sampled, fill, reason_to_drop

pytestmark = pytest.mark.torch

TASK = Task(task_id="toy-1", repo="toy", base_commit="0", problem_statement="f(1) is 3", image="toy")


def step(index, status="faithful", trajectory="t", task_id="toy-1"):
    return Step(
        step_id=f"{trajectory}/{index}", trajectory_id=trajectory, task_id=task_id, index=index, thought=f"thought {index}",
        command=Command(tool="bash", arguments={"command": f"cat file_{index}.py"}), observation=f"content {index}", exit_code=0,
        fidelity=Fidelity(exit_code=True, output=1.0, tree=None, status=status),
    )  # fmt: skip


def write(path, steps):
    with Appender(path) as file:
        for item in steps:
            file.write(item)
    return path


@pytest.fixture
def steps(tmp_path):
    return write(tmp_path / "steps.jsonl", [step(index, trajectory=name) for name in "ab" for index in range(4)])


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return tiny_student(tmp_path_factory.mktemp("student") / "tiny")


def config(student, steps, **changes):
    table = {
        "model": str(student), "steps": (str(steps),), "tasks": "unused", "dtype": "fp32", "device": "cpu", "updates": 4, "save_every": 1,
        "max_new_tokens": 24, "max_prompt_tokens": 512, "optimizer": {"lr": 1e-3}, "algorithm": {"type": "sft", "batch_size": 3},
    }  # fmt: skip
    return TrainConfig.model_validate(table | changes)


# A reward that a random student can earn: similarity of an action needs a well-formed answer, which it never writes.
class Length:
    def __call__(self, completion, expert):
        return Reward(value=len(completion) / 100, parts={"well_formed": 1.0})


@pytest.fixture
def easy_reward(monkeypatch):
    from swe_srl.rewards import SimilarityConfig

    monkeypatch.setattr(SimilarityConfig, "build", lambda _self: Length())


SRL = {"type": "srl", "batch_size": 2, "group_size": 3, "min_reward_std": 0.001}


def weights_of(path):
    from safetensors.torch import load_file

    return load_file(path / "model.safetensors")


# --- data


def test_history_is_the_steps_before_it_in_the_window(steps):
    data = load_examples([steps], [TASK], ("faithful",))
    assert len(data.examples) == data.num_steps == 8
    messages = data.examples[3].messages(ContextConfig(window=2))
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "file_1.py" in messages[2]["content"]
    assert "content 2" in messages[5]["content"]
    assert "thought" not in json.dumps(messages)


def test_nothing_at_or_after_a_lost_step_is_used(tmp_path):
    path = write(tmp_path / "s.jsonl", [step(0), step(1, "drifted"), step(2), step(3, "lost"), step(4)])
    data = load_examples([path], [TASK], ("faithful",))
    assert [example.step.index for example in data.examples] == [0, 2]
    assert data.left_out == {"drifted, not asked for": 1, "at or after a lost step": 2}


def test_a_trajectory_with_a_hole_or_an_unknown_task_is_refused(tmp_path):
    with pytest.raises(FormatError, match="no step 1"):
        load_examples([write(tmp_path / "a.jsonl", [step(0), step(2)])], [TASK], ("faithful",))
    with pytest.raises(UnknownTask, match="toy-2"):
        load_examples([write(tmp_path / "b.jsonl", [step(0, task_id="toy-2")])], [TASK], ("faithful",))
    with pytest.raises(UserError, match="no step to train on"):
        load_examples([write(tmp_path / "c.jsonl", [step(0, "lost")])], [TASK], ("faithful",))


def test_the_cursor_sees_every_example_once_an_epoch_and_goes_on_where_it_was():
    of = ["a", "b", "a", "c", "c"]
    cursor = Cursor(of, seed=1)
    first, second = cursor.take(5), cursor.take(5)
    assert sorted(first) == sorted(second) == list(range(5))
    assert first != second
    resumed = Cursor(of, seed=1)
    resumed.position = 3
    assert resumed.take(4) == (first + second)[3:7]


def test_the_cursor_keeps_the_steps_of_a_trajectory_together():
    of = [str(index // 4) for index in range(40)]
    order = Cursor(of, seed=1).take(40)
    assert [of[index] for index in order[::4]] != sorted(set(of), key=int)
    for start in range(0, 40, 4):
        assert order[start : start + 4] == list(range(order[start], order[start] + 4))


def test_an_epoch_by_difficulty_goes_from_easy_to_hard_in_bands_that_are_shuffled():
    ease = [index / 20 for index in range(20)]
    order = Cursor([str(index) for index in range(20)], seed=1, ease=ease).take(40)
    bands = [order[start : start + 4] for start in range(0, 40, 4)]
    assert [sorted(band) for band in bands] == 2 * [
        [16, 17, 18, 19],
        [12, 13, 14, 15],
        [8, 9, 10, 11],
        [4, 5, 6, 7],
        [0, 1, 2, 3],
    ]
    assert bands[:5] != bands[5:]


# --- difficulty


def measured(path, similarities):
    """A run of `swe-srl agree`: step → mean and standard deviation of the similarities there."""
    with Run(path).append("step_agreement.jsonl", StepAgreement) as rows:
        for step_id, (mean, std) in similarities.items():
            row = StepAgreement(
                step_id=step_id, trajectory_id="a", task_id="toy-1", model="reference", tool="bash", num_samples=4,
                similarity=mean, similarity_std=std, num_well_formed=4, num_same_tool=4,
            )  # fmt: skip
            rows.write(row)
    return str(path)


def test_pivots_are_the_steps_that_the_reference_neither_always_nor_easily_gets(tmp_path):
    data = load_examples(
        [write(tmp_path / "s.jsonl", [step(i, trajectory="a") for i in range(4)])], [TASK], ("faithful",)
    )
    run = measured(tmp_path / "run", {"a/0": (0.3, 0.1), "a/1": (0.9, 0.1), "a/2": (0.2, 0.0), "a/3": (0.5, 0.2)})
    chosen = choose(data, DifficultyConfig(measured=run, min_std=0.0, max_mean=0.6))
    assert [(example.step.index, example.ease) for example in chosen.examples] == [(0, 0.3), (3, 0.5)]
    assert chosen.left_out == {"easy for the reference": 1, "alike under the reference": 1}
    assert choose(data, None) == data
    assert len(choose(data, DifficultyConfig(measured=run, order="easy_first")).examples) == 4
    with pytest.raises(UserError, match=r"none of 4 steps passes min_std 0\.5"):
        choose(data, DifficultyConfig(measured=run, min_std=0.5))


def test_a_reference_that_was_not_measured_everywhere_is_refused(tmp_path):
    data = load_examples(
        [write(tmp_path / "s.jsonl", [step(i, trajectory="a") for i in range(2)])], [TASK], ("faithful",)
    )
    with pytest.raises(UserError, match=r"no step_agreement\.jsonl in .*swe-srl agree"):
        choose(data, DifficultyConfig(measured=str(tmp_path)))
    run = measured(tmp_path / "run", {"a/0": (0.3, 0.1)})
    with pytest.raises(UserError, match=r"lacks step 'a/1'.*--limit"):
        choose(data, DifficultyConfig(measured=run))


# --- selection


def sampled(*values, well_formed=1.0):
    rewards = tuple(Reward(value=value, parts={"well_formed": well_formed}) for value in values)
    return Sampled("s", (1,), tuple((2,) for _ in values), tuple((-1.0,) for _ in values), rewards)


def test_groups_whose_rewards_are_alike_are_thrown_away_and_replaced_until_the_batch_is_full():
    supply = iter(
        [
            sampled(0, 0),
            sampled(-1, -1, well_formed=0.0),
            sampled(0, 1),
            sampled(0.5, 0.5),
            sampled(0, 1),
            sampled(1, 0),
            sampled(1, 0),
        ]
    )
    asked = []

    def sample(count, round_):
        asked.append((count, round_))
        return [next(supply) for _ in range(count)]

    selection = fill(3, [], sample, min_std=0.01, max_rounds=9, keep_old=False, divide_by_std=True)
    assert len(selection.groups) == 3
    assert selection.thrown == {"rewards alike": 2, "all malformed": 1}
    assert asked == [(3, 0), (4, 1)]
    assert [len(group.advantages) for group in selection.left_over] == [2]
    assert selection.left_over[0].old_log_probs is not None
    assert all(group.old_log_probs is None for group in selection.groups)
    again = fill(1, selection.left_over, sample, min_std=0.01, max_rounds=9, keep_old=False, divide_by_std=True)
    assert again.groups == selection.left_over
    assert again.num_rounds == 0


def test_sampling_ends_at_the_cap_on_rounds():
    selection = fill(
        2, [], lambda count, _: [sampled(1, 1)] * count, min_std=0.0, max_rounds=3, keep_old=False, divide_by_std=True
    )
    assert (selection.groups, selection.num_rounds) == ([], 3)


def test_without_dynamic_sampling_the_first_groups_are_taken_as_they_come():
    def sample(count, _):
        return [sampled(1, 1), sampled(0, 1), sampled(0, 0, well_formed=0.0)][:count]

    selection = fill(3, [], sample, min_std=None, max_rounds=9, keep_old=False, divide_by_std=True)
    assert (selection.num_rounds, selection.thrown) == (1, {})
    assert [group.advantages for group in selection.groups] == [(0.0, 0.0), (-1.0, 1.0), (0.0, 0.0)]


def test_a_group_needs_a_spread_above_epsilon_in_the_population_sense():
    rewards = tuple(Reward(value=value) for value in (0.0, 0.2))
    assert reason_to_drop(rewards, 0.1) == "rewards alike"
    assert reason_to_drop(rewards, 0.0999) == ""


# --- objective


def test_advantages_have_mean_zero_and_population_std_one():
    assert group_advantages([0.0, 1.0]) == (-1.0, 1.0)
    advantages = group_advantages([0.1, 0.5, 0.9, -1.0])
    assert sum(advantages) == pytest.approx(0)
    assert sum(a * a for a in advantages) / 4 == pytest.approx(1)


GROUPS = [Group("a", (1, 2), ((1, 2, 3), (4,)), (1.0, -1.0)), Group("b", (1,), ((5, 6), (7, 8)), (2.0, -2.0))]


def test_sequence_weights_give_each_answer_and_token_weights_each_token_the_same():
    by_answer = token_weights(GROUPS, "sequence", 10)
    torch.testing.assert_close(by_answer[0], torch.tensor([1 / 12] * 3 + [1 / 4]))
    by_token = token_weights(GROUPS, "token", 10)
    torch.testing.assert_close(torch.cat(by_token), torch.full((8,), 1 / 8))
    assert per_token(GROUPS[0]).tolist() == [1.0, 1.0, 1.0, -1.0]


def test_dr_grpo_favours_no_length_and_leaves_advantages_on_the_scale_of_rewards():
    torch.testing.assert_close(torch.cat(token_weights(GROUPS, "constant", 10)), torch.full((8,), 1 / 40))
    longer = [GROUPS[0], Group("b", (1,), ((5, 6, 6, 6, 6), (7, 8)), (2.0, -2.0))]
    assert token_weights(longer, "constant", 10)[0][0] == token_weights(GROUPS, "constant", 10)[0][0]
    assert group_advantages([0.25, 0.75], divide_by_std=False) == (-0.25, 0.25)


def test_the_gradient_of_fresh_samples_is_that_of_plain_policy_gradient():
    log_probs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    advantages, weights = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.2, 0.3, 0.5])
    loss = policy_gradient(log_probs, log_probs.detach(), advantages, weights, ObjectiveConfig())
    loss.value.backward()
    torch.testing.assert_close(log_probs.grad, -weights * advantages)
    assert loss.value.item() == pytest.approx(-(weights * advantages).sum().item())
    assert (loss.clip_share, loss.kl) == (0.0, 0.0)


def test_the_ratio_is_clipped_on_the_side_that_the_advantage_pushes_to():
    old = torch.zeros(4)
    log_probs = torch.tensor([math.log(1.5), math.log(0.5), math.log(1.5), math.log(0.5)], requires_grad=True)
    advantages, weights = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.full((4,), 0.25)
    loss = policy_gradient(log_probs, old, advantages, weights, ObjectiveConfig(clip_low=0.2, clip_high=0.3))
    loss.value.backward()
    assert loss.value.item() == pytest.approx(-0.25 * (1.3 + 0.5 - 1.5 - 0.8))
    assert [value == 0.0 for value in log_probs.grad.tolist()] == [True, False, False, True]
    assert loss.clip_share == 0.5


def test_the_kl_term_pulls_each_token_towards_the_reference_and_is_zero_there():
    log_probs = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    reference = torch.tensor([-1.0, -0.5, -2.0])
    weights, zeros = torch.tensor([0.5, 0.25, 0.25]), torch.zeros(3)
    loss = policy_gradient(log_probs, log_probs.detach(), zeros, weights, ObjectiveConfig(kl_weight=2.0), reference)
    loss.value.backward()
    expected = 0.25 * (math.exp(0.5) - 0.5 - 1) + 0.25 * (math.exp(-1.0) + 1.0 - 1)
    assert loss.kl == pytest.approx(expected)
    assert loss.value.item() == pytest.approx(2 * expected)
    torch.testing.assert_close(log_probs.grad, 2 * weights * (1 - (reference - log_probs.detach()).exp()))


def test_cross_entropy_is_the_weighted_negative_log_likelihood():
    loss = cross_entropy(torch.tensor([-1.0, -3.0]), torch.tensor([0.25, 0.75]))
    assert loss.value.item() == pytest.approx(2.5)


# --- optimizer


def test_the_learning_rate_warms_up_and_decays_as_told():
    cosine = OptimizerConfig(lr=1.0, schedule="cosine", warmup_share=0.25)
    rates = [learning_rate(cosine, update, 8) for update in range(1, 9)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.1
    assert {learning_rate(OptimizerConfig(lr=1.0, schedule="constant"), update, 8) for update in range(1, 9)} == {1.0}


def test_steps_too_small_for_bfloat16_still_add_up():
    model = torch.nn.Linear(4, 4, bias=False).to(torch.bfloat16)
    torch.nn.init.constant_(model.weight, 1.0)
    optimizer = MasterOptimizer(model, OptimizerConfig(lr=1e-4, schedule="constant"))
    for _ in range(100):
        model(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()
        optimizer.accumulate()
        optimizer.step(1e-4)
    assert optimizer.state()["masters"]["weight"].mean().item() == pytest.approx(0.99, abs=1e-4)
    assert model.weight.float().mean().item() == pytest.approx(0.99, abs=4e-3)
    assert model.weight.dtype == torch.bfloat16


# --- runs


def run_training(path, settings, examples):
    from swe_srl.training.loop import train

    return train(settings, examples, Run(path))


def test_sft_lowers_the_loss_and_writes_a_model_that_transformers_reads(tmp_path, student, steps):
    from transformers import AutoModelForCausalLM

    settings = config(student, steps, updates=12, save_every=100, optimizer={"lr": 1e-2})
    final = run_training(tmp_path / "run", settings, load_examples([steps], [TASK], ("faithful",)).examples)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == list(range(1, 13))
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert all(0 < line["grad_norm"] < 100 for line in lines)
    model = AutoModelForCausalLM.from_pretrained(final)
    assert not torch.equal(model.state_dict()["model.norm.weight"], weights_of(student)["model.norm.weight"])
    assert not list(final.glob("trainer.pt"))


def test_what_lies_below_the_trainable_layers_does_not_move(tmp_path, student, steps):
    from transformers import AutoModelForCausalLM

    settings = config(student, steps, updates=4, save_every=2, trainable_layers=1, optimizer={"lr": 1e-2})
    examples = load_examples([steps], [TASK], ("faithful",)).examples
    before = weights_of(student)
    after = AutoModelForCausalLM.from_pretrained(run_training(tmp_path / "run", settings, examples)).state_dict()
    last = max(int(name.split(".")[2]) for name in before if name.startswith("model.layers."))
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert moved == {name for name in before if name.startswith((f"model.layers.{last}.", "model.norm"))}
    with pytest.raises(ConfigError, match=f"has {last + 1} layers"):
        run_training(tmp_path / "more", settings.model_copy(update={"trainable_layers": last + 2}), examples)


DR_GRPO = SRL | {"objective": {"normalise": "constant", "divide_by_std": False, "kl_weight": 0.1}}


def test_checkpointing_activations_computes_the_layers_twice_and_changes_nothing_else(tmp_path, student, steps):
    examples = load_examples([steps], [TASK], ("faithful",)).examples
    calls = {"plain": 0, "saving": 0}
    final = {}
    for name in calls:

        def count(module, *_, name=name):
            calls[name] += isinstance(module, torch.nn.Linear)

        settings = config(student, steps, activation_checkpointing=name == "saving")
        hook = torch.nn.modules.module.register_module_forward_hook(count)
        final[name] = weights_of(run_training(tmp_path / name, settings, examples))
        hook.remove()
    assert 1.8 * calls["plain"] < calls["saving"] <= 2 * calls["plain"]  # it stops once it has what it needs
    for name, weight in final["plain"].items():
        assert torch.equal(weight, final["saving"][name]), name


@pytest.mark.parametrize("algorithm", [{"type": "sft", "batch_size": 3}, SRL, DR_GRPO])
def test_a_killed_run_that_is_called_again_ends_with_the_same_weights_bit_for_bit(
    tmp_path, student, steps, easy_reward, monkeypatch, algorithm
):
    from swe_srl.training.trainer import Trainer

    examples = load_examples([steps], [TASK], ("faithful",)).examples
    settings = config(student, steps, algorithm=algorithm, save_every=2)
    whole = run_training(tmp_path / "whole", settings, examples)

    update = Trainer.update

    def killed(self, number):
        if number == 4:
            raise KeyboardInterrupt
        return update(self, number)

    monkeypatch.setattr(Trainer, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path / "killed", settings, examples)
    monkeypatch.setattr(Trainer, "update", update)
    assert len((tmp_path / "killed/metrics.jsonl").read_text().splitlines()) == 3
    resumed = run_training(tmp_path / "killed", settings, examples)

    for (name, ours), (_, theirs) in zip(weights_of(whole).items(), weights_of(resumed).items(), strict=True):
        assert torch.equal(ours, theirs), name
    rows = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "killed")
    ]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]


def test_only_the_newest_checkpoints_are_kept_and_a_finished_run_is_left_alone(tmp_path, student, steps):
    examples = load_examples([steps], [TASK], ("faithful",)).examples
    settings = config(student, steps, keep_last=2)
    final = run_training(tmp_path / "run", settings, examples)
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["update-000003", "update-000004"]
    before = (tmp_path / "run/metrics.jsonl").read_text()
    assert run_training(tmp_path / "run", settings, examples) == final
    assert (tmp_path / "run/metrics.jsonl").read_text() == before


def test_srl_learns_to_earn_a_reward(tmp_path, student, steps, easy_reward):
    algorithm = SRL | {"batch_size": 3, "group_size": 8}
    settings = config(
        student, steps, algorithm=algorithm, updates=12, save_every=100, optimizer={"lr": 1e-2, "schedule": "constant"}
    )
    run_training(tmp_path / "run", settings, load_examples([steps], [TASK], ("faithful",)).examples)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rewards = [line["collected"]["reward_mean"] for line in lines]
    assert sum(rewards[-3:]) > 1.2 * sum(rewards[:3])
    assert all(0 < line["collected"]["reward_std"] <= 1 for line in lines)


def test_a_kl_term_compares_with_the_student_as_the_run_began_and_holds_it_near(tmp_path, student, steps, easy_reward):
    examples = load_examples([steps], [TASK], ("faithful",)).examples
    divergence = {}
    for weight in (0.001, 100.0):
        algorithm = SRL | {"objective": {"kl_weight": weight}}
        settings = config(student, steps, algorithm=algorithm, updates=6, save_every=3, optimizer={"lr": 1e-2})
        run_training(tmp_path / f"run-{weight}", settings, examples)
        lines = (tmp_path / f"run-{weight}/metrics.jsonl").read_text().splitlines()
        divergence[weight] = [json.loads(line)["kl"] for line in lines]
        assert divergence[weight][0] == pytest.approx(0, abs=1e-6)
    assert 0 < sum(divergence[100.0]) < 0.7 * sum(divergence[0.001])


def test_srl_without_any_signal_says_so_in_one_sentence(tmp_path, student, steps):
    settings = config(student, steps, algorithm=SRL | {"max_rounds": 2})
    with pytest.raises(UserError, match=r"none of \d+ sampled groups .*all malformed.*SFT"):
        run_training(tmp_path / "run", settings, load_examples([steps], [TASK], ("faithful",)).examples)


def test_without_dynamic_sampling_a_batch_without_signal_moves_nothing(tmp_path, student, steps):
    settings = config(student, steps, algorithm=SRL | {"dynamic_sampling": False}, updates=2)
    final = run_training(tmp_path / "run", settings, load_examples([steps], [TASK], ("faithful",)).examples)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [(row["collected"]["groups_kept"], row["collected"]["rounds"], row["cursor"]) for row in rows] == [
        (2, 1, 2),
        (2, 1, 4),
    ]
    assert [row["grad_norm"] for row in rows] == [0.0, 0.0]
    for name, weight in weights_of(student).items():
        assert torch.equal(weight, weights_of(final)[name]), name


@pytest.mark.parametrize(
    "preset",
    sorted(
        path.stem
        for path in PRESETS.glob("*.toml")
        if path.stem.startswith(("sft", "srl")) and "stages" not in read_toml(path)
    ),
)
def test_every_training_preset_is_valid(preset):
    settings = load(TrainConfig, preset)
    assert settings.algorithm.type == preset.partition("-")[0]


def test_the_paper_presets_hold_the_printed_settings():
    sft, srl = load(TrainConfig, "sft"), load(TrainConfig, "srl")
    assert (sft.algorithm.batch_size, sft.optimizer.lr, sft.optimizer.warmup_share, sft.epochs) == (64, 5e-6, 0.3, 3)
    assert (srl.algorithm.batch_size, srl.algorithm.group_size, srl.optimizer.lr, srl.optimizer.warmup_share) == (
        512,
        8,
        5e-7,
        0,
    )
    assert sft.model == srl.model == "Qwen/Qwen2.5-Coder-7B-Instruct"


def test_the_presets_for_7b_differ_from_the_papers_in_how_they_fit_alone():
    for name in ("sft", "srl"):
        paper = load(TrainConfig, name)
        for where in ("lora", "full", "8gpu"):
            settings = load(TrainConfig, f"{name}-7b-{where}")
            assert (settings.model, settings.algorithm, settings.context) == (
                paper.model,
                paper.algorithm,
                paper.context,
            )
            assert (settings.epochs, settings.dtype) == (paper.epochs, paper.dtype)
            assert settings.activation_checkpointing
            assert (settings.lora is not None, settings.optimizer.states) == (
                where == "lora",
                "8bit" if where == "full" else "fp32",
            )
            assert settings.optimizer.lr == pytest.approx(paper.optimizer.lr * (10 if where == "lora" else 1))


def rows_file(path):
    row = {"instance_id": "toy-1", "repo": "toy", "base_commit": "0", "problem_statement": "p", "image": "toy"}
    path.write_text(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*-7b-*.toml")))
def test_every_preset_for_7b_dry_runs(tmp_path, steps, preset):
    from typer.testing import CliRunner

    from swe_srl.cli import app

    words = ["train", preset, "--steps", str(steps), "--tasks", str(rows_file(tmp_path / "rows.jsonl")), "--dry-run"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == "Qwen/Qwen2.5-Coder-7B-Instruct"
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_ends_a_run_before_it_begins(tmp_path, steps, student, monkeypatch, capsys):
    import importlib.util

    from swe_srl.cli import main

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    words = ["train", "sft-cpu", "--steps", str(steps), "--tasks", str(rows_file(tmp_path / "rows.jsonl"))]
    words += ["--model", str(student), "--out", str(tmp_path / "run"), "--set", 'trackers=["wandb"]']
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "'wandb' is not installed: pip install 'swe-srl[trackers]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_prints_settings_and_counts_and_writes_nothing(tmp_path, steps):
    from typer.testing import CliRunner

    from swe_srl.cli import app

    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        json.dumps(
            {"instance_id": "toy-1", "repo": "toy", "base_commit": "0", "problem_statement": "p", "image": "toy"}
        )
        + "\n"
    )
    arguments = [
        "train",
        "sft-cpu",
        "--steps",
        str(steps),
        "--tasks",
        str(rows),
        "--dry-run",
        "--out",
        str(tmp_path / "run"),
        "--set",
        "optimizer.lr=0.5",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["optimizer"]["lr"] == 0.5
    assert not (tmp_path / "run").exists()
    assert "8 of 8 steps" in result.stderr
