"""Grading on a cluster of two machines, one killed in the middle, beside threads: the same verdicts, nothing lost, nothing done twice.

    python scripts/bench/cluster.py TASKS --out cluster [--predictions 200] [--box type=bubblewrap --box archives=images]

The cluster is Ray's own, for tests: two nodes that this machine plays, each with an image cache of its own. Predictions are made
from the tasks: the gold patch, none, half a patch, and one that is no patch, each in the name of several models. Prints
seconds, verdicts by status, how many differ, and how often each prediction was begun on the cluster.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from swe_srl.benchmarks.grading_spec import load_specs
from swe_srl.grading.run import VERDICTS
from swe_srl.schema import Prediction, Verdict
from swe_srl.store import read_records, write_json

STORE = 80 * 2**20
"""Bytes of shared memory for each machine: the least that Ray takes, nearly."""


def main() -> None:
    """Grade by threads, then on the cluster, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--predictions", type=int, default=200)
    parser.add_argument("--box", action="append", default=[], help="a setting of the boxes, as type=bubblewrap")
    parser.add_argument("--kill-at", type=float, default=0.4, help="share of the verdicts at which a machine dies")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    predictions = list(islice(made(options.tasks), options.predictions))
    rows = [{"instance_id": item.task_id, "model_name_or_path": item.model, "model_patch": item.patch} for item in predictions]  # fmt: skip
    write_json(options.out / "predictions.json", rows)
    here = grade(options, "threads", "--workers", "2")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE})  # fmt: skip
    nodes = [
        cluster.add_node(num_cpus=1, object_store_memory=STORE, env_vars={"XDG_CACHE_HOME": str(options.out / f"cache-{n}")})
        for n in range(2)
    ]  # fmt: skip
    watch = threading.Thread(target=kill_one, args=(options, cluster, nodes[1], len(predictions)), daemon=True)
    watch.start()
    try:
        there = grade(options, "cluster", "--workers", "1", "--executor", "ray", "--address", cluster.address)
    finally:
        cluster.shutdown()
    differ = [key for key in here if key not in there or judged(here[key]) != judged(there[key])]
    lines = Counter((row.task_id, row.model) for row in read_records(options.out / "cluster" / VERDICTS, Verdict))
    print(
        f"{len(here)} predictions: {dict(Counter(item.status for item in here.values()))}; {len(differ)} verdicts differ on the cluster; "
        f"{len(there)} verdicts there, {sum(count > 1 for count in lines.values())} of them written twice"
    )
    for key in differ:
        print(key, here[key].status, there[key].status if key in there else "missing")


def made(tasks: Path) -> Iterator[Prediction]:
    """Predictions of every kind on every task, again and again in the name of another model."""
    golds = {task: spec.gold_patch for task, spec in load_specs(tasks).items()}
    for number in range(10**6):
        for task, gold in golds.items():
            half = gold[: len(gold) // 2]
            for kind, patch in (("gold", gold), ("none", ""), ("half", half), ("noise", "not a patch\n")):
                yield Prediction(task_id=task, model=f"{kind}-{number}", patch=patch, exit_status="submitted")


def grade(options: argparse.Namespace, name: str, *where: str) -> dict[tuple[str, str], Verdict]:
    """One `swe-srl grade`."""
    begun = time.monotonic()
    subprocess.run(
        [
            sys.executable, "-m", "swe_srl.cli", "grade", str(options.out / "predictions.json"), "--tasks", str(options.tasks),
            "--out", str(options.out / name), *(word for setting in options.box for word in ("--box", setting)), *where,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    found = {(row.task_id, row.model): row for row in read_records(options.out / name / VERDICTS, Verdict)}
    print(f"{name}: {len(found)} verdicts in {time.monotonic() - begun:.1f} s", flush=True)
    return found


def judged(verdict: Verdict) -> Verdict:
    """A verdict without what differs each time."""
    return verdict.model_copy(update={"duration_s": 0.0})


def kill_one(options: argparse.Namespace, cluster: Any, node: Any, total: int) -> None:
    """Kill a machine when enough verdicts are there."""
    path = options.out / "cluster" / VERDICTS
    while not path.is_file() or path.read_bytes().count(b"\n") < options.kill_at * total:
        time.sleep(0.1)
    cluster.remove_node(node, allow_graceful=False)
    print(f"a machine was killed after {path.read_bytes().count(bytes([10]))} verdicts", flush=True)


if __name__ == "__main__":
    main()
