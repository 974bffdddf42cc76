"""Trainings in a chain: how their settings come together, one budget for all, and a kill at any stage."""

import json

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")

from safetensors.torch import load_file
from toy import write_toy

from swe_srl.cli import main
from swe_srl.errors import ConfigError, NothingToLearn
from swe_srl.policy.load import last_checkpoint, load_student
from swe_srl.settings import merge, read_toml
from swe_srl.testing.tiny import tiny_student
from swe_srl.training.chain import chain_config, limit
from swe_srl.training.config import OptimizerConfig
from swe_srl.training.metrics import read_metrics, read_stalled, spent
from swe_srl.training.optimizer import learning_rate, place
from swe_srl.training.trainer import Trainer

pytestmark = pytest.mark.torch

CHAIN = """
dtype = "fp32"
device = "cpu"
save_every = 1
max_prompt_tokens = 400
max_new_tokens = 12
[optimizer]
lr = 1e-3
[stages.sft]
updates = 2
algorithm = { type = "sft", batch_size = 3 }
[stages.srl]
updates = 3
algorithm = { type = "srl", batch_size = 2, group_size = 2, dynamic_sampling = false }
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A student, a task and the steps of two trajectories."""
    path = tmp_path_factory.mktemp("material")
    tiny_student(path / "tiny")
    write_toy(path, 4)
    (path / "chain.toml").write_text(CHAIN)
    return path


def run(material, out, *options):
    """`swe-srl train` of the chain; its exit code."""
    given = ["--steps", f"{material}/steps.jsonl", "--tasks", f"{material}/tasks.jsonl", "--model", f"{material}/tiny"]
    with pytest.raises(SystemExit) as end:
        main(["train", f"{material}/chain.toml", *given, "--out", str(out), *options])
    return end.value.code or 0


def resolved(tmp_path, text, *overrides, **given):
    file = tmp_path / "chain.toml"
    file.write_text(text)
    return chain_config(read_toml(file), overrides, given, tmp_path / "run", "chain.toml")


def test_a_stage_has_its_presets_settings_then_those_of_the_file_then_its_own(tmp_path):
    text = """
    max_new_tokens = 64
    [optimizer]
    warmup_share = 0.5
    [stages.sft]
    preset = "sft-cpu"
    [stages.srl]
    preset = "srl-cpu"
    optimizer.lr = 3e-5
    algorithm.group_size = 4
    """
    sft, srl = (stage.settings for stage in resolved(tmp_path, text, model="tiny").stages)
    assert (sft.updates, sft.max_new_tokens, sft.optimizer.lr, sft.optimizer.warmup_share) == (24, 64, 1e-4, 0.5)
    assert (srl.optimizer.lr, srl.optimizer.schedule, srl.algorithm.group_size, srl.algorithm.batch_size) == (
        3e-5,
        "constant",
        4,
        6,
    )
    assert (sft.model, srl.model) == ("tiny", str(tmp_path / "run/1-sft"))


def test_a_setting_on_the_command_line_is_for_all_stages_and_one_with_a_stages_name_for_that(tmp_path):
    chain = resolved(
        tmp_path, CHAIN, "updates=7", "stages.srl.updates=1", "stages.srl.share=0.5", "budget_tokens=9", "seed=3"
    )
    assert [stage.settings.updates for stage in chain.stages] == [7, 1]
    assert [stage.settings.seed for stage in chain.stages] == [3, 3]
    assert [stage.share for stage in chain.stages] == [None, 0.5]
    assert chain.budget_tokens == 9
    assert all(stage.settings.budget_tokens is None for stage in chain.stages)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.rlvr.updates=1"], "no stage 'rlvr', only sft, srl"),
        (["stages.srl.share=0.5"], "no budget_tokens to share"),
        (["budget_tokens=10", "stages.srl.share=0.6", "stages.sft.share=0.6"], "add up to 1.2"),
        (["stages.srl.updates=0"], r"stages\.srl: updates"),
    ],
)
def test_a_chain_that_cannot_be_is_one_sentence(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        resolved(tmp_path, CHAIN, *overrides)


def test_another_algorithm_takes_the_place_of_the_old_ones_settings():
    old = {"algorithm": {"type": "srl", "group_size": 8}, "seed": 1}
    assert merge(old, {"algorithm": {"type": "sft"}}) == {"algorithm": {"type": "sft"}, "seed": 1}
    assert merge(old, {"algorithm": {"batch_size": 2}})["algorithm"] == {
        "type": "srl",
        "group_size": 8,
        "batch_size": 2,
    }
    assert old["algorithm"] == {"type": "srl", "group_size": 8}


def test_what_a_stage_may_spend_is_the_least_of_its_share_its_own_limit_and_what_is_left():
    assert limit(None, None, None, 50) is None
    assert limit(None, None, 30, 50) == 30
    assert limit(100, None, None, 40) == 60
    assert limit(100, 0.2, None, 40) == 20
    assert limit(100, 0.2, 10, 40) == 10
    assert limit(100, 0.9, None, 100) == 0


@pytest.mark.parametrize("preset", ["srl-rlvr", "srl-rlvr-cpu"])
def test_the_presets_are_chains_that_end_with_rlvr(tmp_path, preset):
    chain = chain_config(read_toml(preset), [], {}, tmp_path, preset)
    assert [stage.settings.algorithm.type for stage in chain.stages][-2:] == ["srl", "rlvr"]
    assert len({stage.settings.context for stage in chain.stages}) == 1


def test_stages_follow_one_another_and_the_run_is_the_last_ones_model(material, tmp_path):
    assert run(material, tmp_path / "run") == 0
    assert [len(read_metrics(tmp_path / "run" / name)) for name in ("1-sft", "2-srl")] == [2, 3]
    found = last_checkpoint(tmp_path / "run")
    assert found == tmp_path / "run/2-srl/checkpoints/update-000003"
    assert load_student(str(tmp_path / "run")).model is not None
    started = json.loads((tmp_path / "run/2-srl/train.json").read_text())
    assert started["model"] == str(tmp_path / "run/1-sft")


def test_a_chain_killed_in_its_second_stage_goes_on_there_and_ends_with_the_same_weights(
    material, tmp_path, monkeypatch, capfd
):
    options = ("--set", "stages.srl.algorithm.min_reward_std=0", "--set", "stages.srl.optimizer.weight_decay=0.5")
    assert run(material, tmp_path / "whole", *options) == 0
    update = Trainer.update
    taken = []

    def killed(self, number):
        taken.append(number)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return update(self, number)

    monkeypatch.setattr(Trainer, "update", killed)
    assert run(material, tmp_path / "killed", *options) == 130
    assert last_checkpoint(tmp_path / "killed") == tmp_path / "killed/2-srl/checkpoints/update-000001"
    assert run(material, tmp_path / "killed", *options) == 0
    assert taken == [1, 2, 1, 2, 2, 3]
    ours, theirs = (
        load_file(tmp_path / name / "2-srl/checkpoints/update-000003/model.safetensors") for name in ("whole", "killed")
    )
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert "stage 2 of 2: srl" in capfd.readouterr().err


def test_the_budget_is_for_all_stages_and_what_does_not_fit_is_not_begun(material, tmp_path, capfd):
    assert run(material, tmp_path / "free") == 0
    first = spent(tmp_path / "free/1-sft")
    rows = read_metrics(tmp_path / "free/2-srl")
    update = rows[0].num_tokens + rows[0].num_sampled_tokens
    assert first.sampled == 0 < first.trained
    budget = first.total + update + 1
    assert run(material, tmp_path / "one", "--set", f"budget_tokens={budget}") == 0
    assert [len(read_metrics(tmp_path / "one" / name)) for name in ("1-sft", "2-srl")] == [2, 2]
    assert not (last_checkpoint(tmp_path / "one") / "trainer.pt").exists()
    rates = [[row.lr for row in read_metrics(tmp_path / name / "2-srl")] for name in ("free", "one")]
    assert rates[0][0] == rates[1][0]
    assert rates[1][1] < 0.1 * rates[0][1], "of the budget next to nothing was left, and of the schedule too"
    assert json.loads((tmp_path / "one/2-srl/train.json").read_text())["budget_tokens"] == update + 1
    before = (tmp_path / "one/2-srl/metrics.jsonl").read_text()
    assert run(material, tmp_path / "one", "--set", f"budget_tokens={budget}") == 0
    assert (tmp_path / "one/2-srl/metrics.jsonl").read_text() == before
    assert run(material, tmp_path / "none", "--set", f"budget_tokens={first.total}") == 0
    assert not (tmp_path / "none/2-srl").exists()
    assert "stage 2 of 2: srl: not begun" in capfd.readouterr().err


def test_sampled_tokens_are_those_of_the_tree_of_all_that_was_sampled(material, tmp_path):
    """Two steps of one trajectory, two answers each: what their prompts share is counted once."""
    assert run(material, tmp_path / "run", "--set", "stages.srl.updates=1") == 0
    row = read_metrics(tmp_path / "run/2-srl")[0]
    assert row.num_answer_tokens + 100 < row.num_sampled_tokens < 0.6 * row.num_plain_tokens
    assert row.num_tokens == row.num_sampled_tokens, "nothing was thrown away, so all that was sampled is trained on"


def test_where_nothing_can_be_learned_the_run_says_what_it_took(material, tmp_path):
    dynamic = {"dynamic_sampling": "true", "max_rounds": 1}
    assert run(material, tmp_path / "run", *(f"--set=stages.srl.algorithm.{k}={v}" for k, v in dynamic.items())) == 2
    stalled = read_stalled(tmp_path / "run/2-srl")
    assert stalled.update == 1
    assert "all malformed" in stalled.reason
    assert stalled.num_sampled_tokens > 0
    assert spent(tmp_path / "run/2-srl") == (0, stalled.num_sampled_tokens)
    assert last_checkpoint(tmp_path / "run") == tmp_path / "run/1-sft/checkpoints/update-000002"


def test_a_budget_that_is_spent_early_ends_the_schedule_early_too():
    cosine = OptimizerConfig(lr=1.0, schedule="cosine")
    free = [learning_rate(cosine, place(update, 20, 0, None), 20) for update in range(1, 7)]
    rates = [learning_rate(cosine, place(update, 20, 100 * (update - 1), 600), 20) for update in range(1, 7)]
    assert free[0] == rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert rates == [learning_rate(cosine, update, 6) for update in range(1, 7)]
    assert free[5] > 0.8
    assert place(5, 20, 10, 10_000) == 5, "where the updates go faster, they decide"


def test_a_student_that_has_nothing_left_to_learn_is_kept_as_it_is_then(material, tmp_path, monkeypatch):
    """Between two checkpoints: the update before is saved, and a later call goes on from there as if never stopped."""
    from swe_srl.training.algorithms.srl import Srl

    collect = Srl.collect
    gone = []

    def finds_nothing(self, cursor, update):
        if update == 3 and not gone:
            gone.append(cursor.take(5))
            raise NothingToLearn("rewards alike", 11)
        return collect(self, cursor, update)

    rarely = ("--set=save_every=100",)
    assert run(material, tmp_path / "whole", *rarely) == 0
    monkeypatch.setattr(Srl, "collect", finds_nothing)
    assert run(material, tmp_path / "run", *rarely) == 2
    assert last_checkpoint(tmp_path / "run") == tmp_path / "run/2-srl/checkpoints/update-000002"
    assert run(material, tmp_path / "run", *rarely) == 0
    assert read_stalled(tmp_path / "run/2-srl") is None
    rows = [read_metrics(tmp_path / name / "2-srl") for name in ("whole", "run")]
    assert [row.cursor for row in rows[0]] == [row.cursor for row in rows[1]]
    assert [row.num_sampled_tokens for row in rows[0]] == [row.num_sampled_tokens for row in rows[1]]


def test_a_chain_and_a_single_training_do_not_share_a_directory(material, tmp_path, capfd):
    for name, other in (("train.json", "chain.toml"), ("chain.json", "one.toml")):
        (tmp_path / name[:5]).mkdir()
        (tmp_path / name[:5] / name).write_text("{}")
        (tmp_path / "one.toml").write_text("")
        file = material / other if other == "chain.toml" else tmp_path / other
        with pytest.raises(SystemExit) as end:
            main(["train", str(file), "--out", str(tmp_path / name[:5])])
        assert end.value.code == 2
        assert "choose another --out" in capfd.readouterr().err


def test_a_dry_run_prints_the_stages_and_writes_nothing(material, tmp_path, capfd):
    assert run(material, tmp_path / "run", "--dry-run", "--set", "budget_tokens=5000") == 0
    shown = capfd.readouterr()
    assert [stage["name"] for stage in json.loads(shown.out)["stages"]] == ["sft", "srl"]
    assert "sft: 8 of 8 steps" in shown.err
    assert "5000 tokens for all stages" in shown.err
    assert not (tmp_path / "run").exists()
