"""What runs wrote becomes one page that needs no network and believes no text."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from page_runs import all_runs, teaching_run, training_run
from typer.testing import CliRunner

from swe_srl.cli import app
from swe_srl.errors import FormatError, UserError
from swe_srl.reporting.collect import Collected, collect
from swe_srl.reporting.page.build import STATIC, page
from swe_srl.reporting.page.forests import attempts, tools
from swe_srl.reporting.page.material import Material, gather
from swe_srl.reporting.page.plots import charts, scale_of, symmetric
from swe_srl.reporting.page.tasks import task_detail, task_line, tracks_of
from swe_srl.reporting.sources import Sources, labels_of, recognise
from swe_srl.reporting.summarise import summarise
from swe_srl.reporting.teachers import read_replays, read_teaching
from swe_srl.reporting.training import read_training, training_rows
from swe_srl.schema import Mean, Prediction, Proportion, StepAgreement, Task, Verdict
from swe_srl.store import read_records
from swe_srl.summaries import Report

TASK = "django__django-1000"
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def gathered(sources: Sources, tasks: tuple[Task, ...] = ()) -> Material:
    return gather(
        collect(sources.evaluations),
        read_training(sources.training),
        read_replays(sources.replays),
        read_teaching(sources.teaching),
        tasks,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    return all_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def html(runs) -> str:
    sources = recognise(runs)
    return page(summarise(collect(sources.evaluations)), gathered(sources))


def index_of(html: str) -> dict:
    return json.loads(re.search(r'id="index">(.*?)</script>', html, re.DOTALL)[1])


def detail_of(html: str, number: int) -> dict:
    packed = re.search(rf'id="task-{number}">(.*?)</script>', html, re.DOTALL)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_each_directory_is_known_by_its_files(runs):
    found = recognise(runs)
    assert [[path.name for path in paths] for paths in found] == [["base", "srl"], ["srl"], ["replay"], ["teach"]]


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no run.*predict, grade, agree, train, replay or teach"):
        recognise([tmp_path])


def test_directories_of_one_name_are_told_apart_by_what_stands_above(tmp_path):
    assert labels_of([tmp_path / "a" / "srl", tmp_path / "b" / "srl"]) == ["a/srl", "b/srl"]
    assert labels_of([tmp_path / "a" / "sft", tmp_path / "b" / "srl"]) == ["sft", "srl"]


def test_a_teachers_step_stands_beside_the_samples_with_their_rewards(runs):
    material = gathered(recognise(runs))
    tracks = tracks_of(TASK, material)
    assert [(track["kind"], track["name"], len(track["turns"])) for track in tracks] == [
        ("teacher", "oracle", 5),
        ("teacher", "gpt", 1),
        ("run", "base", 4),
        ("run", "srl", 4),
    ]
    step = tracks[0]["turns"][1]
    assert [answer["run"] for answer in step["answers"]] == [0, 1]
    rows = {row.step_id: row for row in read_records(runs[1] / "step_agreement.jsonl", StepAgreement)}
    kept = rows[f"{TASK}.0/1"].samples
    assert [sample["value"] for sample in step["answers"][1]["samples"]] == [item.reward.value for item in kept]
    assert step["answers"][1]["samples"][1]["problem"]
    assert not step["answers"][1]["samples"][1]["action"]
    assert step["answers"][1]["samples"][0]["parts"] == {"well_formed": 1.0, "similarity": 1.0}


def test_a_step_that_drifted_shows_what_the_teacher_saw(runs):
    turns = tracks_of(TASK, gathered(recognise(runs)))[0]["turns"]
    assert turns[3]["replay"]["status"] == "drifted"
    assert turns[3]["recorded"] == "what was seen then"
    assert "recorded" not in turns[2]


def test_answers_to_steps_that_no_run_replayed_are_shown_all_the_same(runs):
    material = gathered(recognise(runs[:2]))
    tracks = tracks_of(TASK, material)
    assert [turn["index"] for turn in tracks[0]["turns"]] == [0, 1, 2, 3, 4]
    assert all(turn["unseen"] and len(turn["answers"]) == 2 for turn in tracks[0]["turns"])


def test_a_line_of_the_list_says_what_can_be_filtered(runs):
    task = Task(task_id=TASK, repo="django", base_commit="c", problem_statement="# A *bad* sum\nmore", image="i")
    material = gathered(recognise(runs), (task,))
    line = task_line(TASK, material, tracks_of(TASK, material))
    assert (line["project"], line["title"], line["replay"], line["steps"]) == ("django", "A *bad* sum", "drifted", 6)
    base, srl = line["runs"]
    assert (base["status"], base["failing"], srl["status"], srl["failing"]) == ("unresolved", 1, "resolved", 0)
    assert base["steps"] == 5
    assert 0 < base["agreement"] < srl["agreement"]


def test_the_project_is_read_off_the_id_where_no_task_is_given(runs):
    material = gathered(recognise(runs))
    found = [material.project(name) for name in (TASK, "psf__requests-1", "funcy__funcy.26b9cc1f.index__5bba31ae", "x")]
    assert found == ["django", "psf/requests", "funcy", ""]


def test_a_verdict_comes_with_its_failing_tests_its_patch_and_the_end_of_the_log(runs):
    folder = runs[0] / "logs" / "run_evaluation" / "base" / "base" / TASK
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test_output.txt").write_text("x" * 50_000 + "E  assert 1 == 2\n")
    material = gathered(recognise(runs))
    (base,), (srl,) = task_detail(TASK, material, [])["outcomes"]
    assert base["verdict"]["tests_failed"] == ["tests/test_core.py::test_0"]
    assert base["patch"].startswith("--- a/core.py")
    assert base["log"].endswith("assert 1 == 2\n")
    assert len(base["log"]) == 4000
    assert "log" not in srl


def test_every_attempt_at_a_task_is_shown_with_the_verdict_on_its_patch():
    def made(patch: str) -> Prediction:
        return Prediction(task_id=TASK, model="m", patch=patch, exit_status="submitted", num_turns=2, num_malformed=1)

    first, second, third = made("a"), made("b"), made("c")
    verdicts = [
        Verdict(task_id=TASK, model="m", patch_digest=item.patch_digest, status=status, tests_failed=failed)
        for item, status, failed in ((second, "resolved", ()), (first, "unresolved", ("t",)))
    ]
    material = gather([Collected("m", "m", (first, second, third), tuple(verdicts))])
    outcomes = task_detail(TASK, material, [])["outcomes"][0]
    assert [item["status"] for item in outcomes] == ["unresolved", "resolved", "not_graded"]
    (cell,) = task_line(TASK, material, [])["runs"]
    assert (cell["status"], cell["attempts"], cell["resolved"], cell["failing"]) == ("resolved", 3, 1, 0)
    assert cell["statuses"] == ["unresolved", "resolved", "not_graded"]
    assert cell["malformed"] == 3


def test_nothing_that_was_written_can_end_a_script(tmp_path):
    runs = all_runs(tmp_path, num_tasks=2, output=EVIL)
    sources = recognise(runs)
    task = Task(task_id=TASK, repo=EVIL, base_commit="c", problem_statement=EVIL, image="i")
    text = page(summarise(collect(sources.evaluations), title=EVIL), gathered(sources, (task,)))
    assert "<img" not in text
    assert "<script>alert" not in text
    assert index_of(text)["tasks"][0]["title"] == EVIL
    assert EVIL in detail_of(text, 0)["tracks"][0]["turns"][0]["output"]


def test_the_page_needs_no_network_and_runs_only_its_own_script(html):
    assert not re.findall(r'(?:src|href)="(?!#|data:,)[^"]*"', html)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"<[a-z][^<>]* style=", html), "the policy forbids inline styles"


def test_every_number_with_an_interval_is_on_the_page(html):
    for words in (
        "Resolved tasks",
        "Agreement with the teacher",
        "Well-formed turns",
        "pallets/flask",
        "Fidelity",
        "Cost",
    ):
        assert words in html
    assert "#run=1&amp;status=tampered" in html
    assert "<caption>US$</caption>" in html
    assert html.count("0.1234") >= 2


def test_an_interval_is_drawn_where_its_numbers_are(html):
    plot = re.search(r'aria-label="srl: 28\.6 % \[8\.2, 64\.1\]">(.*?)</svg>', html, re.DOTALL)[1]
    ends = re.search(r'class="reach" x1="([\d.]+)%" x2="([\d.]+)%"', plot)
    assert [float(ends[1]), float(ends[2])] == pytest.approx([100 * 0.0822 / 0.8, 100 * 0.6411 / 0.8], abs=0.01)
    assert float(re.search(r'circle cx="([\d.]+)%"', plot)[1]) == pytest.approx(100 * 2 / 7 / 0.8, abs=0.01)
    assert plot.count("grid") == 5


def test_a_training_run_alone_makes_a_page(tmp_path):
    sources = recognise([training_run(tmp_path / "sft", 1, "sft")])
    text = page(summarise([]), gathered(sources))
    assert "Training: SFT" in text
    assert "Outcomes" not in text


def test_the_verb_writes_three_files_and_names_a_directory_without_a_run(runs, tmp_path):
    result = CliRunner().invoke(app, ["report", *map(str, runs), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "report.json", "report.md"]
    written = Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert written.training[0] | {"run": "srl", "updates": 12, "seconds": 36.0} == written.training[0]
    assert written.replays[0] | {"trajectories": 8, "faithful": 32, "drifted": 8, "lost": 0} == written.replays[0]
    assert written.teaching[0] | {"accepted": 1, "rejected": 1, "cost_usd": 0.1234} == written.teaching[0]
    assert (
        "| teach | gpt | 2 | 1 | 1 | 2 | 12000 | 3000 | 900 | 0.1234 |" in (tmp_path / "out" / "report.md").read_text()
    )
    with pytest.raises(UserError, match="holds no run"):
        CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "o")], catch_exceptions=False)


def test_a_training_run_alone_has_its_line_in_the_markdown(tmp_path):
    run = training_run(tmp_path / "sft", 2, "sft")
    result = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Training" in text
    assert "## What was counted" not in text


@pytest.mark.parametrize(
    "content", ['{"usage": {"prompt_tokens": "many"}}', '{"calls": 3}', "[]", '{"num_wanted": null}']
)
def test_a_summary_of_teaching_that_is_none_is_named(tmp_path, content):
    run = teaching_run(tmp_path / "teach", [TASK, "b"])
    (run / "summary.json").write_text(content)
    with pytest.raises(FormatError, match=r"summary\.json"):
        read_teaching([run])


def test_the_last_of_two_lines_of_one_update_counts_and_a_line_without_one_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"update": 1, "loss": 2.0}\n{"update": 1, "loss": 1.0}\n')
    (run,) = read_training([tmp_path])
    assert run.series("loss") == [(1, 1.0)]
    (tmp_path / "metrics.jsonl").write_text('{"loss": 2.0}\n')
    with pytest.raises(FormatError, match=r"metrics\.jsonl, line 1"):
        read_training([tmp_path])


def test_a_chart_holds_every_point_and_leaves_out_what_no_run_has(tmp_path):
    runs = read_training([training_run(tmp_path / "srl", 12)])
    found = {chart.name: chart for chart in charts(runs)}
    assert {"reward_mean", "reward_std", "groups_kept", "completion_tokens_mean", "clip_share", "entropy"} <= set(found)
    assert "turns_mean" not in found
    assert "kl" not in found
    (line,) = found["entropy"].lines
    assert (len(line.points), line.points[0], line.points[-1]) == (12, (1.0, 1.0), (12.0, 1 / 12))
    assert line.dots[0][0] == 0
    assert line.dots[-1][0] == 100
    assert training_rows(runs)[0]["seconds"] == 36.0


def test_a_loss_of_which_only_rounding_is_left_is_none_to_look_at(tmp_path):
    rows = [{"update": update, "loss": -3e-9 * update, "collected": {"reward_mean": 0.5}} for update in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    runs = read_training([tmp_path])
    assert [chart.name for chart in charts(runs)] == ["reward_mean"]
    assert training_rows(runs)[0]["loss_last"] == 0.0
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row | {'loss': 1e-5})}\n" for row in rows))
    assert "loss" in [chart.name for chart in charts(read_training([tmp_path]))]


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0.0, 0.43], (0.0, 0.6)),
        ([0.9, 1.0], (0.9, 1.0)),
        ([6.0], (0.0, 6.0)),
        ([0.0], (0.0, 1.0)),
        ([-3.0, 2.0], (-4.0, 2.0)),
    ],
)
def test_a_scale_has_round_ends_that_hold_all_values(values, ends):
    scale = scale_of(values)
    assert (scale.low, scale.high) == pytest.approx(ends)
    assert scale.ticks[0] == pytest.approx(scale.low)
    assert all(0 <= scale.place(value) <= 100 for value in values)
    assert symmetric(values).place(0.0) == 50


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


TEXT = [
    *((text, ground) for text in ("text", "muted") for ground in ("bg", "panel", "sunk", "chosen")),
    *((text, ground) for text in ("accent", "good", "bad", "warn", "plain", "odd", "s6", "s7") for ground in ("panel", "chosen")),
    ("on-match", "match"), ("on-gone", "gone"), ("accent", "sunk"),
]  # fmt: skip
GRAPHICS = [
    *((f"s{number}", ground) for number in range(1, 9) for ground in ("panel", "chosen")),
    ("edge", "panel"),
    ("accent", "bg"),
]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(theme):
    colours = {
        name: pair[theme]
        for name, *pair in re.findall(
            r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", (STATIC / "page.css").read_text()
        )
    }
    low = [pair for pair in TEXT if contrast(colours[pair[0]], colours[pair[1]]) < 4.5]
    low += [pair for pair in GRAPHICS if contrast(colours[pair[0]], colours[pair[1]]) < 3]
    assert not low


def test_several_attempts_each_tool_and_lengths_are_drawn(runs):
    report = summarise(collect(recognise(runs).evaluations))
    once, *others = report.runs
    passed = {1: Mean(value=0.25, low=0.1, high=0.4, n=8), 2: Mean(value=0.4, low=0.2, high=0.6, n=8)}
    passed[3] = Mean(value=0.5, low=0.3, high=0.7, n=8)
    chosen = {"consensus": Proportion(k=3, n=8, low=0.137, high=0.694)}
    several = once.model_copy(update={"pass_at": passed, "best_of": chosen, "counts": {**once.counts, "attempts": 3}})
    drawn = attempts(report.model_copy(update={"runs": (several, *others)}))
    assert {group.title: [(row.label, row.text) for row in group.rows] for group in drawn} == {
        "pass@1": [("base", "0.250")],
        "pass@2": [("base", "0.400")],
        "pass@3": [("base", "0.500")],
        "Best of 3 by consensus": [("base", "37.5 %")],
    }
    assert attempts(report) == []
    assert {group.title: [row.label for row in group.rows] for group in tools(report)} == {
        "bash": ["base", "srl"],
        "str_replace_editor": ["base", "srl"],
    }
    for group, tool in zip(tools(report), report.runs[1].tools, strict=True):
        assert group.rows[1].value == tool.similarity.value
    html = page(report.model_copy(update={"runs": (several, *others)}), gathered(recognise(runs)))
    assert all(words in html for words in ("pass@3", "Best of 3 by consensus", "Agreement by the teacher", "tokens per attempt"))  # fmt: skip
