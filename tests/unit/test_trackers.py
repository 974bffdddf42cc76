"""Metrics that go to trackers: what was logged is there, a resumed run goes on in the same one, and none stops a run."""

import json
import logging
import subprocess
import sys

import pytest

from swe_srl.errors import ConfigError, UserError
from swe_srl.store import Run
from swe_srl.training import trackers
from swe_srl.training.metrics import UpdateMetrics, learned
from swe_srl.training.trackers import TRACKERS, numbers, require, tracking


def metrics(update, loss):
    return UpdateMetrics(
        update=update, num_updates=9, loss=loss, lr=0.1, grad_norm=1.0, entropy=1.0, clip_share=0.0, num_tokens=7, num_answer_tokens=3,
        num_prompts_cut=0, cursor=2, collected={"reward_mean": 0.5, "groups_thrown": {"rewards alike": 2}}, collect_s=0.1, train_s=0.2,
    )  # fmt: skip


def log(path, names, losses, first=1):
    run = Run(path)
    with tracking(names, run, {"seed": 1}, first) as opened:
        for update, loss in enumerate(losses, start=first):
            opened.log(metrics(update, loss))


def test_every_number_of_an_update_has_a_name():
    found = numbers(metrics(1, 0.5))
    assert found["loss"] == 0.5
    assert found["collected/reward_mean"] == 0.5
    assert found["collected/groups_thrown/rewards alike"] == 2.0
    assert "update" not in found


def test_a_run_ends_with_what_its_rewards_did_or_its_loss_where_there_are_none():
    rewarded = [
        metrics(update, 1e-9).model_copy(update={"collected": {"reward_mean": reward}})
        for update, reward in ((1, 0.25), (2, 0.5), (3, 0.75))
    ]
    assert learned(rewarded) == "mean reward 0.250 at update 1, 0.750 at update 3"
    fallen = rewarded[-1].model_copy(update={"collected": {"reward_mean": 0.49, "commonest_action": 0.96}})
    assert learned([*rewarded, fallen]).endswith(
        "0.490 at update 3, where 96% of the answers are one and the same action"
    )
    taught = [metrics(update, loss).model_copy(update={"collected": {}}) for update, loss in ((1, 2.0), (2, 0.5))]
    assert learned(taught) == "loss 2.000 at update 1, 0.500 at update 2"


@pytest.mark.torch
def test_tensorboard_shows_what_was_logged_and_what_a_resumed_run_took_again_once(tmp_path):
    pytest.importorskip("torch", reason="needs the train extra")
    pytest.importorskip("tensorboard", reason="needs the trackers extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(tmp_path, ("tensorboard",), [3.0, 2.0, 1.5])
    log(tmp_path, ("tensorboard",), [1.5, 1.0], first=3)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]
    assert "collected/reward_mean" in events.Tags()["scalars"]


def test_wandb_without_an_account_writes_its_files_into_the_run_and_goes_on_in_the_same_one(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the trackers extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for losses, first in (([3.0, 2.0], 1), ([1.0], 3)):
        log(tmp_path, ("wandb",), losses, first)
    key = json.loads((tmp_path / "tracking.json").read_text())["id"]
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert files
    assert {file.name for file in files} == {f"run-{key}.wandb"}
    assert b"reward_mean" in b"".join(file.read_bytes() for file in files)


def test_trackio_keeps_one_run_over_two_processes(tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="needs the trackers extra")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from test_trackers import log\n"
        "log(Path(sys.argv[2]), ('trackio',), [float(x) for x in sys.argv[4:]], int(sys.argv[3]))"
    )
    for first, losses in ((1, ("3", "2")), (3, ("1",))):
        words = [
            sys.executable,
            "-c",
            script,
            str(__file__).rpartition("/")[0],
            str(tmp_path / "run"),
            str(first),
            *losses,
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    import sqlite3

    [database] = (tmp_path / "trackio").glob("swe-srl.db")
    rows = sqlite3.connect(database).execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [(step, json.loads(text)["loss"]) for _, step, text in rows] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert len({name for name, _, _ in rows}) == 1


class Fails:
    """A tracker whose server is gone after the first update."""

    def __init__(self, run):
        self.logged = []
        Fails.made = self

    def log(self, update, values):
        self.logged.append(update)
        if update > 1:
            raise ConnectionError("the server is gone")

    def close(self):
        raise AssertionError("it was dropped")


def test_a_tracker_that_fails_is_reported_once_and_left_alone(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(TRACKERS, "wandb", Fails)
    with caplog.at_level(logging.WARNING):
        log(tmp_path, ("wandb",), [3.0, 2.0, 1.0])
    assert Fails.made.logged == [1, 2]
    assert len(caplog.records) == 1
    assert "wandb failed (ConnectionError: the server is gone): the run goes on" in caplog.text


def test_a_tracker_that_cannot_begin_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(TRACKERS, "wandb", lambda _run: 1 / 0)
    with pytest.raises(UserError, match=r"wandb could not be begun .*leave it out"):
        log(tmp_path, ("wandb",), [1.0])


def test_a_package_that_is_missing_is_named_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    find = trackers.importlib.util.find_spec
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    with pytest.raises(ConfigError, match=r"'wandb' is not installed: pip install 'swe-srl\[trackers\]'"):
        require(["wandb"])


def test_without_trackers_nothing_is_written(tmp_path):
    log(tmp_path / "run", (), [1.0])
    assert list((tmp_path / "run").iterdir()) == []
