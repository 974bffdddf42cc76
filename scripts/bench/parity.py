"""A task repository → do `swebench eval` (its own command) and `swe-srl grade` agree on gold, empty and five wrong patches?

    .venv/bin/python scripts/bench/parity.py TASKS --out DIR [--num-tasks 2] [--ids ID …]

The images are built first. swebench knows one prediction per task and run, so each kind of patch is a run of its own.
Exit code 1 when a verdict or the status of a single test differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from swebench.task.repo import load_task_repo

from swe_srl.benchmarks.load import load_tasks
from swe_srl.runtime.docker.images import ensure_image

BIN = Path(sys.executable).parent


def wrong_patches(gold: str) -> dict[str, str]:
    """Five patches that do not solve the task, made from the one that does."""
    target = next(line for line in gold.splitlines() if line.startswith("+++ b/")).removeprefix("+++ b/")
    package = str(Path(target).parent)

    def new_file(name: str, text: str) -> str:
        body = "".join(f"+{line}\n" for line in text.splitlines())
        count = len(text.splitlines())
        return f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{count} @@\n{body}"

    return {
        "beside-the-point": new_file("NOTES-of-the-agent.txt", "I looked around and found nothing."),
        "breaks-everything": new_file(f"{package}/sitecustomize.py", "raise SystemExit(3)")
        + new_file("conftest.py", "raise RuntimeError('broken by the patch')"),
        "leaves-early": new_file("conftest.py", "import os\n\nos._exit(0)"),
        "does-not-apply": gold.replace(target, f"{package}/no_such_file.py"),
        "is-no-diff": "I think that the bug is in the comparison.\n",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-tasks", type=int, default=2)
    parser.add_argument("--ids", nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    rows = {row["instance_id"]: row for row in load_task_repo(str(arguments.tasks))}
    tasks = load_tasks(arguments.tasks, arguments.ids)[: arguments.num_tasks or None]
    for task in tasks:
        ensure_image(task.image, task.image_context)
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    chosen = [rows[task.task_id] for task in tasks]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))

    kinds: dict[str, dict[str, str]] = {"gold": {}, "empty": {}}
    for row in chosen:
        kinds["gold"][row["instance_id"]] = row["patch"]
        kinds["empty"][row["instance_id"]] = ""
        for kind, patch in wrong_patches(row["patch"]).items():
            kinds.setdefault(kind, {})[row["instance_id"]] = patch

    seconds = {"swebench": 0.0, "swe-srl": 0.0}
    differences = 0
    for kind, patches in kinds.items():
        predictions = out / f"{kind}.jsonl"
        predictions.write_text(
            "".join(
                json.dumps({"instance_id": task_id, "model_name_or_path": kind, "model_patch": patch}) + "\n"
                for task_id, patch in patches.items()
            )
        )
        seconds["swebench"] += run_swebench(out, kind, arguments.workers)
        seconds["swe-srl"] += run_ours(out, kind, arguments.tasks.resolve(), arguments.workers)
        for task_id in patches:
            theirs, ours = (outcome(out / side, kind, task_id) for side in ("swebench", "ours"))
            same = theirs == ours
            differences += not same
            print(
                f"{'same' if same else 'DIFFERENT':9}  {kind:17}  {task_id}: {ours[0]}"
                + ("" if same else f", swebench says {theirs}")
            )
    print(f"{differences} differences in {sum(map(len, kinds.values()))} predictions on {len(tasks)} tasks")
    print(
        f"seconds: swebench {seconds['swebench']:.1f}, swe-srl {seconds['swe-srl']:.1f}: {seconds['swebench'] / seconds['swe-srl']:.1f} times"
    )
    return int(differences > 0)


def run_swebench(out: Path, kind: str, workers: int) -> float:
    folder = out / "swebench" / kind
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    command = [
        BIN / "swebench",
        "eval",
        out / "rows.jsonl",
        "-p",
        out / f"{kind}.jsonl",
        "--run-id",
        kind,
        "-j",
        str(workers),
    ]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"swebench eval failed on {kind}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - start


def run_ours(out: Path, kind: str, tasks: Path, workers: int) -> float:
    start = time.monotonic()
    command = [
        BIN / "swe-srl",
        "grade",
        out / f"{kind}.jsonl",
        "--tasks",
        tasks,
        "--out",
        out / "ours" / kind,
        "--workers",
        str(workers),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"swe-srl grade failed on {kind}:\n{done.stderr[-2000:]}")
    return time.monotonic() - start


def outcome(root: Path, kind: str, task_id: str) -> tuple[str, object]:
    """(verdict in swebench's words, status of every expected test) as one of the two harnesses wrote them."""
    (path,) = (root / kind).glob(f"{kind}.{kind}.json")
    run_report = json.loads(path.read_text())
    words = [
        name for name in ("resolved", "unresolved", "empty_patch", "error") if task_id in run_report[f"{name}_ids"]
    ]
    report = root / kind / "logs" / "run_evaluation" / kind / kind / task_id / "report.json"
    tests = json.loads(report.read_text())[task_id] if report.is_file() else None
    return "+".join(words), tests


if __name__ == "__main__":
    sys.exit(main())
