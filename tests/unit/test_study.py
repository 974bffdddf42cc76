"""The study: which models its cells share, what becomes of a cell, a kill in the middle of one, and the numbers."""

import itertools
import json
import os
import subprocess
import sys
import time

import pytest
from toy import write_toy

from swe_srl.dialogue import format_completion
from swe_srl.errors import ConfigError, UserError
from swe_srl.schema import Reward, Rollout, Step, StepAgreement, Verdict
from swe_srl.settings import PRESETS, apply_overrides, build, load, parse_value, read_toml
from swe_srl.store import Run, read_json, read_records, write_json
from swe_srl.study.config import StudyConfig
from swe_srl.study.cost import costs
from swe_srl.study.data import digests
from swe_srl.study.estimate import Estimate
from swe_srl.study.measures import EXACT, SIMILARITY, Measures
from swe_srl.study.plan import flat, make_plan
from swe_srl.study.render import figure, markdown
from swe_srl.study.run import Study, remember
from swe_srl.study.table import read_measured, tabulate
from swe_srl.training.metrics import read_metrics

STUDY = """
student = "{material}/tiny"
steps = ["{material}/steps.jsonl"]
tasks = "{material}/tasks.jsonl"
heldout_steps = "{material}/steps.jsonl"
heldout_tasks = "{material}/tasks.jsonl"
seeds = [0, 1]
control = "SFT"
[stages.sft]
preset = "{material}/one.toml"
algorithm = {{ type = "sft", batch_size = 3 }}
[stages.srl]
preset = "{material}/one.toml"
algorithm = {{ type = "srl", batch_size = 2, group_size = 2, dynamic_sampling = false }}
[arms]
base = []
SFT = ["sft"]
"SFT → SRL" = ["sft", "srl"]
[controls]
SFT = "base"
[agreement]
num_samples = 1
batch_size = 4
max_steps = 2
sampling = {{ temperature = 1.0, max_new_tokens = 8 }}
"""
ONE = """
updates = 2
dtype = "fp32"
device = "cpu"
save_every = 1
max_prompt_tokens = 400
max_new_tokens = 8
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A task, the steps of two trajectories and a study; the student is made by the tests that need torch."""
    path = tmp_path_factory.mktemp("material")
    write_toy(path, 3)
    (path / "one.toml").write_text(ONE)
    (path / "study.toml").write_text(STUDY.format(material=path))
    return path


def configured(material, *overrides):
    return load(StudyConfig, material / "study.toml", overrides)


def agreement(step_id, similarity, *, task="t", tokens=10.0, well_formed=2, exact=None):
    return StepAgreement(
        step_id=step_id, trajectory_id=task, task_id=task, model="m", tool="bash", num_samples=2, similarity=similarity,
        similarity_std=0.0, num_well_formed=well_formed, num_same_tool=0, mean_tokens=tokens, num_exact=exact,
    )  # fmt: skip


class Verbs:
    """Verbs that leave the files which real ones would; `codes` says what a training that contains those words ends with."""

    def __init__(self, codes=()):
        self.lines = []
        self.codes = dict(codes)
        self.similarity = {"base": 0.25, "sft": 0.5, "sft+srl": 0.75}

    def __call__(self, words):
        self.lines.append(list(words))
        told = " ".join(words)
        out = Run(words[words.index("--out") + 1])
        for part, code in self.codes.items():
            if part in told:
                if code == 2:
                    stalled = {"update": 1, "reason": "never solved", "num_sampled_tokens": 70}
                    write_json(out.path / "stalled.json", stalled)
                return code
        if words[0] == "train":
            write_json(out.path / "checkpoints/update-000001/checkpoint.json", {"update": 1})
            row = dict.fromkeys(
                ("num_updates", "loss", "lr", "grad_norm", "entropy", "clip_share", "num_answer_tokens"), 0
            )
            row |= dict.fromkeys(("num_prompts_cut", "cursor", "collect_s", "train_s"), 0)
            row |= {"update": 1, "num_tokens": 100, "num_sampled_tokens": 20, "collected": {}}
            (out.path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        if words[0] == "agree":
            value = self.similarity[words[words.index("--name") + 1]]
            with out.append("step_agreement.jsonl", StepAgreement) as file:
                file.write(agreement("a/0", value), agreement("a/1", value))
        return 0

    def verbs(self, kind):
        return [line for line in self.lines if line[0] == kind]


def run_study(config, out, verbs, said=None):
    said = [] if said is None else said
    return Study(make_plan(config), out, verbs, said.append).run()


# --- plan


def test_arms_that_begin_alike_share_their_models_and_seeds_do_not(material):
    plan = make_plan(configured(material))
    assert len(plan.cells) == 6
    names = [(model.seed, model.name) for model in plan.models()]
    assert names == [(seed, name) for seed in (0, 1) for name in ("base", "sft", "sft+srl")]
    longer = configured(material, 'arms.longer=[{stage = "sft", updates = 9}]')
    models = make_plan(longer).models()
    assert [model.name for model in models if model.seed == 0] == ["base", "sft", "sft+srl", "sft"]
    assert len({model.folder for model in models}) == 8


def test_what_a_stage_is_told_comes_to_its_settings(material):
    changed = 'arms.other=[{stage = "srl", algorithm = {reward = {type = "structured"}}, context = {window = "all"}}]'
    cell = next(cell for cell in make_plan(configured(material, changed)).cells if cell.arm == "other")
    stage = cell.model.stage
    assert stage.settings.algorithm.reward.type == "structured"
    assert stage.settings.algorithm.group_size == 2
    assert stage.settings.context.window == "all"
    table = apply_overrides(read_toml(stage.preset), stage.overrides)
    assert build(type(stage.settings), table, "x").algorithm == stage.settings.algorithm


def test_settings_pass_through_the_command_line_unchanged():
    table = {"b": {"x": 'a "quoted" = text', "type": "t", "n": [1, 2.5, True]}, "parts": [{"name": "é", "weight": 0.5}]}
    assert [one.partition("=")[0] for one in flat(table)] == ["b.type", "b.x", "b.n", "parts"]
    assert apply_overrides({}, list(flat(table))) == table
    assert parse_value("[1]") == [1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('arms.bad=["dpo"]', "stage 'dpo', which is none of sft, srl"),
        ('control="none"', "'none' is compared"),
        ('arms."SFT-SRL"=["srl"]', "would share the folder SFT-SRL"),
        ('arms.bad=[{stage = "sft", share = 0.5}]', "`share` is a part of budget_tokens"),
        ('arms.bad=[{stage = "sft", updates = 0}]', "arm 'bad', stage 'sft': updates"),
        ("seeds=[1,1]", "a seed stands twice"),
        ("reward=taste", "no reward 'taste'"),
        ("solve={tasks = 1, settings = {turns = 3}}", "solve: turns"),
        (
            "solve={tasks = 1, attempts = 2, settings = {sampling = {temperature = 0.0}}}",
            "2 attempts with temperature 0",
        ),
    ],
)
def test_a_study_that_cannot_be_is_one_sentence(material, override, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(configured(material, override))


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("study*.toml")))
def test_the_presets_are_plans_in_which_every_model_sees_the_same_context_but_where_that_is_the_question(preset):
    config = load(StudyConfig, preset)
    plan = make_plan(config)
    assert len(config.seeds) >= 3
    assert any(not stages for stages in config.arms.values())
    contexts = {
        cell.arm: model.stage.settings.context for cell in plan.cells for model in cell.model.lineage() if model.stage
    }
    other = {arm for arm, context in contexts.items() if context != config.agreement.context}
    assert other == ({"SRL, whole history"} if preset == "study" else set())


def test_costs_name_updates_and_tokens_and_count_what_is_shared_once(material):
    found = costs(make_plan(configured(material, "budget_tokens=3000")))
    assert (found.num_trainings, found.num_measurements) == (4, 6)
    stages = {(cell.arm, cell.seed): of_cell for cell, of_cell in found.of_cell}
    assert stages["base", 0] == []
    sft, srl = stages["SFT → SRL", 0]
    assert (sft.name, sft.num_updates, sft.is_shared, srl.is_shared) == ("sft", 2, True, False)
    assert 0 < sft.tokens < 3000
    assert sft.tokens + srl.tokens <= 3000


# --- cells


def test_a_study_trains_what_arms_share_once_and_a_second_call_does_nothing(material, tmp_path):
    verbs = Verbs()
    results, missing = run_study(configured(material), tmp_path, verbs)
    assert (len(results), missing) == (6, [])
    assert len(verbs.verbs("train")) == 4
    assert len(verbs.verbs("agree")) == 6
    assert all("--set=keep_last=1" in line for line in verbs.verbs("train"))
    srl = next(line for line in verbs.verbs("train") if '--set=algorithm.type="srl"' in line)
    assert "/models/seed-0/sft-" in srl[srl.index("--model") + 1]
    assert [stage.name for stage in results[2].stages] == ["sft", "srl"]
    assert read_json(tmp_path / "cells/SFT-SRL/seed-0/cell.json")["measured"] == results[2].measured
    again = Verbs()
    assert run_study(configured(material), tmp_path, again) == (results, [])
    assert again.lines == []


def test_a_new_arm_or_seed_adds_cells_and_repeats_none(material, tmp_path):
    run_study(configured(material, "seeds=[0]"), tmp_path, Verbs())
    verbs = Verbs()
    verbs.similarity["srl"] = 0.9
    results, _ = run_study(configured(material, "seeds=[0]", 'arms.SRL=["srl"]'), tmp_path, verbs)
    assert len(results) == 4
    assert [line[0] for line in verbs.lines] == ["train", "agree"]


def test_nothing_to_learn_is_a_result_and_the_cell_is_measured_as_what_it_began_with(material, tmp_path):
    verbs = Verbs({'--set=algorithm.type="srl"': 2})
    results, missing = run_study(configured(material, "seeds=[0]"), tmp_path, verbs)
    assert missing == []
    srl = results[2].stages[1]
    assert (srl.outcome, srl.note, srl.trained_tokens, srl.sampled_tokens) == (
        "nothing to learn",
        "never solved",
        0,
        70,
    )
    assert results[2].measured == results[1].measured
    assert len(verbs.verbs("agree")) == 2
    table = tabulate(configured(material), read_measured(results, tmp_path, Measures(configured(material))))
    assert table.arms[2].notes == ("seed 0: srl, nothing to learn after 0 updates (never solved)",)
    assert "SFT → SRL, seed 0: srl, nothing to learn" in markdown(table)
    again: list[str] = []
    assert Study(make_plan(configured(material, "seeds=[0]")), tmp_path, Verbs(), again.append).run()[0] == results
    assert "min left" not in "".join(again), "what an ended arm would have come to is not to be done"
    both, _ = run_study(configured(material), tmp_path, verbs)
    table = tabulate(configured(material), read_measured(both, tmp_path, Measures(configured(material))))
    assert table.arms[2].notes == ("seeds 0, 1: srl, nothing to learn after 0 updates (never solved)",)


def test_a_broken_apparatus_costs_its_cells_alone_and_is_tried_once_a_call(material, tmp_path):
    verbs = Verbs({"models/seed-0/sft-": 3})
    results, missing = run_study(configured(material), tmp_path, verbs)
    assert [(cell.arm, cell.seed) for cell in results] == [("base", 0), ("base", 1), ("SFT", 1), ("SFT → SRL", 1)]
    assert [(cell.arm, cell.seed) for cell in missing] == [("SFT", 0), ("SFT → SRL", 0)]
    assert "exit code 3" in missing[0].reason
    assert sum("models/seed-0/sft-" in line[-1] for line in verbs.lines) == 1
    table = tabulate(configured(material), read_measured(results, tmp_path, Measures(configured(material))), missing)
    assert table.arms[1].seeds == (1,)
    assert "- SFT, seed 0: `swe-srl train` ended with exit code 3" in markdown(table)
    assert len(run_study(configured(material), tmp_path, Verbs())[0]) == 6


def test_wrong_input_ends_the_study_at_once(material, tmp_path):
    def verbs(words):
        return 2

    with pytest.raises(UserError, match="`swe-srl agree` cannot be done as it is told"):
        run_study(configured(material), tmp_path, verbs)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_study_that_is_told_to_end_takes_its_verb_with_it(tmp_path, depth):
    """A study was ended while it trained; the training went on, and held its directory against the next call.

    So it did once more where a script had begun the study.
    """
    code = f"import pathlib, os, time; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(60)"
    for _ in range(depth):
        code = (
            "import sys, swe_srl.study.run as run\n"
            "whole = run.subprocess.Popen\n"
            f"run.subprocess.Popen = lambda words: whole([sys.executable, '-c', {code!r}])\n"
            "run.in_a_process(['train'])"
        )
    study = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
        assert study.poll() is None
    study.terminate()
    assert study.wait() != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_stage_for_which_no_budget_is_left_is_not_begun(material, tmp_path):
    verbs = Verbs()
    results, _ = run_study(configured(material, "seeds=[0]", "budget_tokens=120"), tmp_path, verbs)
    assert [stage.outcome for stage in results[2].stages] == ["trained", "no budget left"]
    assert len(verbs.verbs("train")) == 1
    assert "--set=budget_tokens=120" in verbs.verbs("train")[0]
    assert results[2].measured == results[1].measured
    more = Verbs()
    results, _ = run_study(configured(material, "seeds=[0]", "budget_tokens=150"), tmp_path, more)
    assert "--set=budget_tokens=30" in more.verbs("train")[1]


def test_other_data_or_another_measure_is_refused(material, tmp_path):
    config = configured(material)
    remember(make_plan(config), Run(tmp_path), digests(config))
    remember(make_plan(configured(material, "seeds=[5]")), Run(tmp_path), digests(config))
    with pytest.raises(UserError, match="agreement"):
        remember(make_plan(configured(material, "agreement.num_samples=3")), Run(tmp_path), digests(config))
    with pytest.raises(UserError, match="trained_on"):
        remember(make_plan(config), Run(tmp_path), digests(config) | {"trained_on": "other"})


def test_the_same_data_in_another_folder_is_the_same(material, tmp_path):
    """A study could not go on after its task repository had been moved, or was named by a relative path."""

    def told(folder: str, **changed: str) -> dict[str, str]:
        lines = (material / "tasks.jsonl").read_text().splitlines()
        rows = [json.loads(line) | {"image_context": f"{folder}/one"} | changed for line in lines]
        (tmp_path / f"{folder}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return digests(configured(material, f"tasks={tmp_path / folder}.jsonl"))

    assert told("here") == told("there")
    assert told("here") != told("there", problem_statement="another")


def test_a_model_is_measured_in_the_context_that_it_was_trained_in(material, tmp_path):
    verbs = Verbs()
    solve = ("solve.tasks=2", "solve.preset=demo-agent", 'stages.srl.context={window = "all"}')
    run_study(configured(material, "seeds=[7]", *solve), tmp_path, verbs)
    windows = [
        next(word for word in line if "window" in word) for line in verbs.lines if line[0] in ("agree", "predict")
    ]
    assert windows == ["--set=context.window=2"] * 4 + ['--set=context.window="all"'] * 2
    assert all("--set=sampling.seed=7" in line for line in verbs.verbs("agree") + verbs.verbs("predict"))
    assert [line[0] for line in verbs.lines][:3] == ["agree", "predict", "grade"]


def test_training_tasks_are_solved_where_it_is_said_and_as_often(material, tmp_path):
    verbs = Verbs()
    solve = 'solve={of = "training", tasks = 2, attempts = 3, settings = {sampling = {temperature = 0.5}}}'
    config = configured(material, "seeds=[7]", 'arms={base = [], SFT = ["sft"]}', "tasks=elsewhere", solve)
    run_study(config, tmp_path, verbs)
    tasks = {line[0]: line[line.index("--tasks") + 1] for line in verbs.lines}
    assert tasks["predict"] == tasks["grade"] == tasks["train"] == "elsewhere"
    assert tasks["agree"] == config.heldout_tasks != "elsewhere"
    predict = verbs.verbs("predict")[0]
    assert predict[predict.index("--attempts") + 1] == "3"
    table = tabulate(config, [])
    assert table.solved == "up to 2 training tasks, each 3 times with each seed"
    assert f"Resolved are attempts at {table.solved}." in markdown(table)


def test_what_is_left_is_told_from_what_was_done():
    estimate = Estimate()
    assert estimate.left(["sft"]) == ""
    estimate.took("sft", 60)
    estimate.took("sft", 180)
    assert estimate.left(["sft", "sft"]) == ", about 4 min left"
    assert estimate.left(["sft", "measuring"]) == ", more than 2 min left"


# --- numbers


def test_the_table_is_what_one_counts_by_hand(material, tmp_path):
    """Two seeds, two tasks, two attempts; the interval of a difference of equal differences is that difference."""
    config = configured(material, 'arms={base = [], SFT = ["sft"]}')
    verbs = Verbs()
    run_study(config, tmp_path, verbs)
    results, _ = run_study(config, tmp_path, Verbs())
    values = {("base", 0): (0.1, 0.3), ("base", 1): (0.2, 0.4), ("SFT", 0): (0.3, 0.5), ("SFT", 1): (0.4, 0.6)}
    solved = {("base", 0): "nynn", ("base", 1): "nnnn", ("SFT", 0): "yynn", ("SFT", 1): "ynny"}
    for cell in results:
        folder = tmp_path / cell.measured
        (folder / "step_agreement.jsonl").unlink()
        tokens = 20.0 if cell.arm == "base" else 15.0
        with Run(folder).append("step_agreement.jsonl", StepAgreement) as file:
            for task, value in zip("pq", values[cell.arm, cell.seed], strict=True):
                exact = int(cell.arm == "SFT")
                file.write(agreement(f"{task}/0", value, task=task, tokens=tokens, well_formed=exact + 1, exact=exact))
        with Run(folder).append("verdicts.jsonl", Verdict) as file:
            for number, task in itertools.product(range(2), "pq"):
                word = solved[cell.arm, cell.seed][2 * number + "pq".index(task)]
                status = "resolved" if word == "y" else "unresolved"
                file.write(Verdict(task_id=task, model="m", patch_digest="0", attempt=number, status=status))
    table = tabulate(config, read_measured(results, tmp_path, Measures(config)), constant={SIMILARITY: 0.4})
    base, sft = table.arms
    assert (base.similarity.value, sft.similarity.value) == (pytest.approx(0.25), pytest.approx(0.45))
    assert base.of_seeds == (pytest.approx(0.2), pytest.approx(0.3))
    assert (base.similarity.low, base.similarity.high) == (
        pytest.approx(0.15),
        pytest.approx(0.35),
    )  # one task or the other
    assert (base.well_formed.k, base.well_formed.n, sft.well_formed.k) == (4, 8, 8)
    assert (base.resolved.k, base.resolved.n, sft.resolved.k) == (1, 8, 4)
    assert (base.trained_tokens, sft.trained_tokens, sft.sampled_tokens) == (0, 100, 20)
    assert (base.longer, sft.longer) == (0.0, pytest.approx(-0.25))
    similarity, exact, well_formed, resolved = (
        row for row in table.comparisons if (row.first, row.second) == ("base", "SFT")
    )
    assert (similarity.value, similarity.low, similarity.high, similarity.n) == (*[pytest.approx(0.2)] * 3, 4)
    assert (exact.measure, exact.value) == (EXACT, pytest.approx(0.5))
    assert well_formed.value == pytest.approx(0.5)
    assert (resolved.value, resolved.n, resolved.p) == (pytest.approx(3 / 8), 8, pytest.approx(0.5))
    assert (resolved.low, resolved.high) == (pytest.approx(1 / 4), pytest.approx(1 / 2)), (
        "tasks are drawn, not attempts"
    )
    assert len(table.comparisons) == 4, "the pair is not there the other way round too"
    text = markdown(table)
    assert "| SFT | 2 | 0.450 [0.350, 0.550] (n = 4) | 0.400, 0.500 | 8 of 8" in text
    assert "| SFT | base | step similarity | +0.200 [+0.200, +0.200] | 4 |" in text
    assert "-25.0 %" in text
    assert "| SFT | 0.450 [0.350, 0.550] | 0.500 [0.500, 0.500] |" in text
    assert "| *one action at every step* | 0.400 | – |" in text
    assert figure(table).count("<circle") == 8, "two seeds of two arms, in two panels"
    assert figure(table).count("one action at every step") == 1


def test_the_same_answers_are_valued_by_other_measures_and_so_is_one_action_at_every_step(material):
    measures = Measures(configured(material, 'also=["structured"]'))
    steps = list(read_records(material / "steps.jsonl", Step))
    right, wrong = (
        Rollout(text=text, num_tokens=1, reward=Reward(value=0.0))
        for text in (format_completion("thought", steps[0].command), "no action")
    )
    row = agreement(steps[0].step_id, 0.9, exact=1)
    assert measures.of(row.model_copy(update={"samples": (right, wrong)})) == {EXACT: 0.5, "step structured": 0.5}
    assert measures.of(row) == {EXACT: 0.5}, "the answers were not kept"
    assert measures.of(agreement("other/0", 0.9)) == {}
    constant = measures.of_a_constant([step.step_id for step in steps])
    assert constant[EXACT] == 2 / len(steps)
    assert 0.9 < constant[SIMILARITY] < 1.0
    assert measures.of_a_constant(["other/0"]) == {}
    with pytest.raises(UserError, match="nonsense"):
        Measures(configured(material, 'also=["nonsense"]'))


# --- the whole verb


@pytest.mark.torch
def test_a_study_killed_in_a_cell_goes_on_in_that_cell_with_real_students(material, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs the train extra")
    pytest.importorskip("transformers", reason="needs the train extra")
    from swe_srl.cli import main
    from swe_srl.testing.tiny import tiny_student
    from swe_srl.training.trainer import Trainer

    if not (material / "tiny").exists():
        tiny_student(material / "tiny")
    update = Trainer.update
    taken = []

    def killed(self, number):
        taken.append(number)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return update(self, number)

    def here(words):
        with pytest.raises(SystemExit) as end:
            main(list(words))
        return end.value.code or 0

    monkeypatch.setattr("swe_srl.study.run.in_a_process", here)
    monkeypatch.setattr(Trainer, "update", killed)
    words = ["study", str(material / "study.toml"), "--out", str(tmp_path), "--set", "seeds=[0]"]
    assert here(words) == 130
    assert not (tmp_path / "study.json").exists()
    assert here(words) == 0
    assert taken == [1, 2, 1, 2, 2]
    found = read_json(tmp_path / "study.json")
    assert [arm["arm"] for arm in found["arms"]] == ["base", "SFT", "SFT → SRL"]
    (srl,) = (tmp_path / "models/seed-0").glob("sft+srl-*")
    assert [row.update for row in read_metrics(srl)] == [1, 2]
    assert found["arms"][2]["sampled_tokens"] == sum(row.num_sampled_tokens for row in read_metrics(srl)) > 0
    assert (tmp_path / "study.svg").read_text().startswith("<svg")
