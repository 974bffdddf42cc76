"""fan_out over a Ray cluster of two machines that this one plays: the same as threads, and a machine that dies takes nothing along."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from machines import Machines

from swe_srl.errors import ClusterUnavailable, EngineUnavailable, SandboxError, UserError
from swe_srl.fanout import fan_out
from swe_srl.runtime.cluster import RayCluster
from swe_srl.runtime.roster import MAX_LOSSES

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'swe-srl[ray]'")

# Ray's own warnings are not ours to mend; all else stays an error.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(120)]


@pytest.fixture
def cluster(machines: Machines) -> RayCluster:
    machines.have(2)
    return RayCluster(machines.address)


def both_are_there(folder: Path):
    """What an item calls to wait until both machines have begun: a slow start must not leave all items to one."""
    folder.mkdir(exist_ok=True)
    place = str(folder)

    def wait():
        import time
        from pathlib import Path

        import ray

        (Path(place) / ray.get_runtime_context().get_node_id()).touch()
        deadline = time.monotonic() + 60
        while len(list(Path(place).iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)

    return wait


def began(folder: Path) -> list[str]:
    """What has begun so far: a line for each time."""
    return [line for path in folder.iterdir() for line in path.read_text().split()]


def test_a_cluster_without_machines_is_an_error_after_a_while(machines, monkeypatch):
    from swe_srl.runtime import roster as module

    while machines.nodes:
        machines.lose_one()
    monkeypatch.setattr(module, "PATIENCE_S", 1.0)
    monkeypatch.setattr(module, "LOOK_S", 0.4)
    with pytest.raises(ClusterUnavailable, match="nobody in the cluster"):
        list(fan_out(str, [1], workers=1, executor=RayCluster(machines.address)))


def test_outcomes_are_those_of_threads_and_a_broken_box_is_one_of_them(cluster):
    from swe_srl.errors import SandboxError as Broken

    def work(n):
        if n == 2:
            raise Broken("box gone")
        return n * n

    def found(**where):
        return sorted((o.item, o.value, type(o.failure)) for o in fan_out(work, range(12), workers=2, **where))

    outcomes = found(executor=cluster)
    assert outcomes == found()
    assert outcomes[2] == (2, None, SandboxError)


def test_both_machines_work_and_each_keeps_to_its_images(cluster, tmp_path):
    wait_for_both = both_are_there(tmp_path)

    def work(item):
        import time

        import ray

        wait_for_both()
        time.sleep(0.1)
        return item[0], ray.get_runtime_context().get_node_id()

    items = [f"{image}{n}" for image in "abcd" for n in range(4)]
    outcomes = list(fan_out(work, items, workers=1, executor=cluster, near=lambda item: item[0]))
    places = [outcome.value for outcome in outcomes]
    assert len({machine for _, machine in places}) == 2
    # were they dealt out in turn, there would be eight pairs; the last image may be shared when nothing else is left
    assert len(set(places)) <= 6


def test_a_lost_machine_costs_nothing_that_is_done_and_nothing_is_lost(cluster, machines, tmp_path):
    """A machine that was lost at any moment was, now and then, between two items; it is lost while it holds two."""
    folders = [tmp_path / name for name in ("here", "began", "held", "lost")]
    for folder in folders:
        folder.mkdir()
    wait_for_both = both_are_there(folders[0])
    log, held, lost = map(str, folders[1:])
    hold = str(tmp_path / "hold")

    def work(n):
        import os
        import time
        from pathlib import Path

        import ray

        wait_for_both()
        with (Path(log) / str(os.getpid())).open("a") as lines:
            lines.write(f"{n}\n")
        if Path(hold).exists():
            (Path(held) / str(n)).touch()
            here, deadline = ray.get_runtime_context().get_node_id(), time.monotonic() + 60
            while all(path.name == here for path in Path(lost).iterdir()) and time.monotonic() < deadline:
                time.sleep(0.02)
        return n

    def lose_one():
        while len(list(Path(held).iterdir())) < 4:
            time.sleep(0.02)
        under_way = {int(path.name) for path in Path(held).iterdir()}
        (Path(lost) / machines.lose_one()).touch()
        return under_way

    values = []
    with ThreadPoolExecutor(max_workers=1) as beside:
        for outcome in fan_out(work, range(24), workers=2, executor=cluster):
            assert outcome.failure is None
            values.append(outcome.value)
            if len(values) == 8:
                Path(hold).touch()
                losing = beside.submit(lose_one)
    assert sorted(values) == list(range(24))
    times = began(Path(log))
    repeated = {int(n) for n in times if times.count(n) > 1}
    assert len(repeated) == 2, "what ran on the lost machine, and only that, ran again"
    assert repeated < losing.result()


def test_an_item_under_which_every_actor_dies_is_a_failure_of_the_apparatus_and_the_others_go_on(cluster, tmp_path):
    folder = str(tmp_path)

    def work(n):
        import os
        from pathlib import Path

        if n == 1:
            with (Path(folder) / "log").open("a") as log:
                log.write("x\n")
            os._exit(1)
        return n

    outcomes = {o.item: o for o in fan_out(work, range(4), workers=1, executor=cluster)}
    assert isinstance(outcomes[1].failure, SandboxError)
    assert len(began(tmp_path)) == MAX_LOSSES
    assert [outcomes[n].value for n in (0, 2, 3)] == [0, 2, 3]


def test_replay_travels_and_what_it_says_is_written_here(cluster, tmp_path):
    from swe_srl.replay.replay import ReplayConfig
    from swe_srl.replay.run import STEPS, replay_all
    from swe_srl.schema import Command, Step, Task, Trajectory, Turn
    from swe_srl.store import Run
    from swe_srl.testing import FakeSandbox

    def open_box(task, trajectory):
        return FakeSandbox({"a.py": "x = 1\n"}, {"ls": "a.py\n"})

    turn = Turn(
        thought="", command=Command(tool="bash", arguments={"command": "ls"}), observation="a.py\n", exit_code=0
    )
    end = Turn(command=Command(tool="submit"), observation="Submitted.", exit_code=0)
    items = [
        Trajectory(
            trajectory_id=name, task_id="t", model="m", source="swe-srl", turns=(turn, end), exit_status="submitted",
            resolved=True, patch="",
        )
        for name in "abc"
    ]  # fmt: skip
    tasks = {"t": Task(task_id="t", repo="r", base_commit="c", problem_statement="", image="i")}
    config = ReplayConfig(workers=1)

    def steps(name, **where):
        replay_all(items, tasks, Run(tmp_path / name), config, open_box=open_box, **where)
        return sorted(Run(tmp_path / name).read(STEPS, Step), key=lambda step: (step.trajectory_id, step.index))

    there = steps("there", executor=cluster)
    assert {step.trajectory_id for step in there} == {"a", "b", "c"}
    assert there == steps("here")


def test_a_machine_without_an_engine_ends_the_run_and_is_named(cluster, tmp_path):
    folder = str(tmp_path)

    def work(n):
        from pathlib import Path

        from swe_srl.errors import EngineUnavailable

        (Path(folder) / str(n)).write_text(str(n))
        raise EngineUnavailable("no engine answers")

    with pytest.raises(EngineUnavailable, match=r"on [0-9.]+: no engine answers"):
        list(fan_out(work, range(1000), workers=1, executor=cluster))
    assert len(began(tmp_path)) < 10


def test_a_bug_ends_the_run_as_what_it_is(cluster):
    with pytest.raises(ZeroDivisionError):
        list(fan_out(lambda n: 1 // n, [0], workers=1, executor=cluster))


def test_what_runs_is_waited_for_when_the_run_is_left(cluster, tmp_path):
    folder = str(tmp_path)

    def work(n):
        import time
        from pathlib import Path

        if n:
            time.sleep(0.8)
        (Path(folder) / str(n)).write_text(str(n))

    stream = fan_out(work, range(100), workers=1, executor=cluster)
    next(stream)
    time.sleep(0.2)
    stream.close()
    assert 2 <= len(began(tmp_path)) <= 3


def test_a_machine_with_other_versions_is_refused(cluster, monkeypatch):
    from swe_srl.runtime import cluster as module

    monkeypatch.setattr(module, "versions", lambda: {"swe-srl": "99.0", "swebench": "5.0.2"})
    with pytest.raises(ClusterUnavailable, match=r"swe-srl .*, and 99\.0 is wanted"):
        list(fan_out(str, [1], workers=1, executor=cluster))


def grade(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The verb, on one prediction."""
    row = {"instance_id": "a__b-1", "repo": "a/b", "base_commit": "c", "problem_statement": "", "eval_script": "e", "log_parser": "parse_log_pytest", "FAIL_TO_PASS": ["t"], "PASS_TO_PASS": []}  # fmt: skip
    (folder / "rows.json").write_text(json.dumps([row]))
    prediction = {"instance_id": "a__b-1", "model_name_or_path": "m", "model_patch": "diff"}
    (folder / "preds.jsonl").write_text(json.dumps(prediction) + "\n")
    command = [sys.executable, "-m", "swe_srl.cli", "grade", "preds.jsonl", "--tasks", "rows.json", "--out", "run"]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)


def test_an_address_at_which_nobody_answers_is_one_sentence_soon(tmp_path):
    done = grade(tmp_path, "--executor", "ray", "--address", "127.0.0.1:1")
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("grading:")]
    assert (done.returncode, line[:60]) == (
        3,
        "swe-srl: no Ray cluster answers at 127.0.0.1:1: Connection refused"[:60],
    )


def test_an_address_without_the_executor_is_refused(tmp_path):
    done = grade(tmp_path, "--address", "head:6379")
    assert (done.returncode, "add --executor ray" in done.stderr) == (2, True)


@pytest.mark.parametrize("address", ["nowhere", "ray://head:10001", "head:port"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match="is not host:port"):
        RayCluster(address)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'swe-srl\[ray\]'"):
        RayCluster()
