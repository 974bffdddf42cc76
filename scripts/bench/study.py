"""The study on two CPU cores: a demo's projects, and of its training tasks those that the teacher resolved in few steps.

    scripts/demo.sh --out demo
    python scripts/bench/study.py demo --out study [--max-steps 6] [--set …]

A student of 135 million parameters can learn such tasks well enough for RLVR to have something to do. Settings given with
--set are those of `swe-srl study study-cpu`. Call it again to go on. About three hours and a half; then see study/study.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from pathlib import Path

from swe_srl.schema import Step
from swe_srl.store import read_records, write_text
from swe_srl.study.run import in_a_process


def main() -> int:
    """Choose the tasks, then run the study."""
    options = arguments()
    train, test = options.demo / "replay-train", options.demo / "replay-test"
    steps, tasks = options.out / "short/steps.jsonl", options.out / "short/tasks"
    if not steps.is_file():
        choose(train / "steps.jsonl", options.demo / "tasks-train", steps, tasks, options.max_steps)
    return in_a_process([
        "study", "study-cpu", "--steps", str(steps), "--tasks", str(tasks), "--heldout-steps", str(test / "steps.jsonl"),
        "--heldout-tasks", str(options.demo / "tasks-test"), "--out", str(options.out),
        *(word for item in options.set for word in ("--set", item)),
    ])  # fmt: skip


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-steps", type=int, default=6, help="that the teacher took for a task")
    parser.add_argument("--set", action="append", default=[], help="a setting of the study, as a.b=c")
    return parser.parse_args()


def choose(all_steps: Path, all_tasks: Path, steps: Path, tasks: Path, most: int) -> None:
    """Write the tasks with at most so many steps, and their steps, last of all."""
    rows = list(read_records(all_steps, Step))
    counts = Counter(row.task_id for row in rows)
    chosen = {task for task, count in counts.items() if count <= most}
    print(f"{len(chosen)} of {len(counts)} tasks have at most {most} steps", flush=True)
    folders = all_tasks / "tasks"
    ignored = {path.name for path in folders.iterdir()} - chosen
    shutil.copytree(
        all_tasks, tasks, ignore=lambda folder, _: ignored if Path(folder) == folders else set(), dirs_exist_ok=True
    )
    write_text(steps, "".join(f"{row.model_dump_json()}\n" for row in rows if row.task_id in chosen))


if __name__ == "__main__":
    sys.exit(main())
