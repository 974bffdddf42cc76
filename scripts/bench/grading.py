"""`swe-srl grade` and `swebench eval` on the same predictions, over the same task repository and the same images.

    python scripts/bench/grading.py TASKS [--num 32] [--workers 2] [--rounds 1] [--rules strict] [--out FILE]

For each task four predictions: the gold patch, none, one that changes nothing that matters, and one that is half right (the
gold patch with another task's bug). The images are made before anything is timed. Both are called by their command lines, one
after the other, ours first in every other round; swebench takes one prediction a task and file, so it is called once for each
kind and its times are added. Verdicts are compared one by one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from swe_srl.benchmarks.grading_spec import load_specs, row_of
from swe_srl.benchmarks.load import load_tasks
from swe_srl.runtime.docker.images import ensure_image
from swe_srl.schema import Task

KINDS = ("gold", "empty", "wrong", "half")
Verdicts = dict[tuple[str, str], bool]


class Timed(NamedTuple):
    """Wall-clock seconds, and what was resolved."""

    seconds: float
    resolved: Verdicts


def predictions(tasks_dir: Path, tasks: list[Task]) -> dict[str, dict[str, str]]:
    """Kind → task id → patch."""
    gold = {task_id: spec.gold_patch for task_id, spec in load_specs(tasks_dir).items()}
    bugs = {task.task_id: (tasks_dir / "tasks" / task.task_id / "bug.patch").read_text() for task in tasks}
    found: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for number, task in enumerate(tasks):
        other = tasks[(number + 1) % len(tasks)].task_id
        note = "diff --git a/NOTE.txt b/NOTE.txt\nnew file mode 100644\n--- /dev/null\n+++ b/NOTE.txt\n@@ -0,0 +1 @@\n+It was not me.\n"
        patches = (gold[task.task_id], "", note, gold[task.task_id] + bugs[other])
        for kind, patch in zip(KINDS, patches, strict=True):
            found[kind][task.task_id] = patch
    return found


def ours(options: argparse.Namespace, wanted: dict[str, dict[str, str]], ids: set[str], folder: Path) -> Timed:
    """One call of `swe-srl grade` for all kinds."""
    path = folder / "preds.jsonl"
    path.write_text("".join(_line(task_id, kind, patch) for kind in KINDS for task_id, patch in wanted[kind].items()))
    command = [
        Path(sys.executable).parent / "swe-srl",
        "grade",
        path,
        "--tasks",
        options.tasks,
        "--out",
        folder / "ours",
    ]
    command += ["--workers", str(options.workers), "--rules", options.rules]
    start = time.monotonic()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    lines = map(json.loads, (folder / "ours" / "verdicts.jsonl").read_text().splitlines())
    return Timed(
        seconds,
        {(line["model"], line["task_id"]): line["status"] == "resolved" for line in lines if line["task_id"] in ids},
    )


def theirs(options: argparse.Namespace, wanted: dict[str, dict[str, str]], rows: Path, folder: Path) -> Timed:
    """A call of `swebench eval` for each kind."""
    seconds, resolved = 0.0, {}
    for kind in KINDS:
        path = folder / f"{kind}.jsonl"
        path.write_text("".join(_line(task_id, kind, patch) for task_id, patch in wanted[kind].items()))
        command = [
            Path(sys.executable).parent / "swebench",
            "eval",
            rows,
            "-p",
            path,
            "--run-id",
            kind,
            "-j",
            str(options.workers),
        ]
        start = time.monotonic()
        subprocess.run(
            [str(word) for word in command],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seconds += time.monotonic() - start
        for task_id in wanted[kind]:
            report = folder / "logs" / "run_evaluation" / kind / kind / task_id / "report.json"
            resolved[kind, task_id] = report.is_file() and json.loads(report.read_text())[task_id]["resolved"]
    return Timed(seconds, resolved)


def measure(options: argparse.Namespace, tasks: list[Task], *, ours_first: bool) -> dict[str, Any]:
    """One round: both ways over the same predictions."""
    specs, wanted = load_specs(options.tasks), predictions(options.tasks, tasks)
    with tempfile.TemporaryDirectory(prefix="swe-srl-bench-") as scratch:
        folder = Path(scratch)
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps(row_of(task, specs[task.task_id])) + "\n" for task in tasks))
        mine = ours(options, wanted, set(specs), folder) if ours_first else None
        swebench = theirs(options, wanted, rows, folder)
        mine = mine or ours(options, wanted, set(specs), folder)
    differ = sorted(key for key in swebench.resolved if swebench.resolved[key] != mine.resolved.get(key))
    return {
        "swebench": metadata.version("swebench"),
        "rules": options.rules,
        "predictions": len(swebench.resolved),
        "resolved": dict(Counter(kind for (kind, _), good in swebench.resolved.items() if good)),
        "differ": [list(key) for key in differ],
        "ours_s": round(mine.seconds, 1),
        "swebench_s": round(swebench.seconds, 1),
        "ratio": round(swebench.seconds / mine.seconds, 1),
    }


def _line(task_id: str, model: str, patch: str) -> str:
    return json.dumps({"instance_id": task_id, "model_name_or_path": model, "model_patch": patch}) + "\n"


def main() -> None:
    """Run the rounds and say what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--num", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rules", default="strict", choices=("strict", "swebench"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tasks = load_tasks(options.tasks)[: options.num]
    for task in tasks:
        ensure_image(task.image, task.image_context)
    for number in range(options.rounds):
        figures = {"round": number + 1, **measure(options, tasks, ours_first=number % 2 == 0)}
        print(json.dumps(figures), flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
