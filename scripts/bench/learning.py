"""SRL from one SFT start, several seeds, with and without dynamic sampling: similarity to the teacher on held-out steps.

    scripts/demo.sh --out demo
    python scripts/bench/learning.py demo --out learning [--seeds 3] [--updates 12] [--steps 120]

Takes the warm start, the training steps and the held-out steps from a demo. Every run is one `swe-srl train` and one
`swe-srl agree`; call it again to go on. Intervals are 95 % bootstraps over tasks; "all seeds" takes each step's mean over
the seeds first.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from swe_srl.cli.demo import DemoConfig
from swe_srl.schema import STEP_AGREEMENT, StepAgreement
from swe_srl.settings import load
from swe_srl.statistics import bootstrap_mean, paired_difference
from swe_srl.store import read_records
from swe_srl.training.metrics import METRICS, UpdateMetrics

ARMS = {"dynamic": (), "fixed": ("--set", "algorithm.dynamic_sampling=false")}


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--steps", type=int, default=120, help="held-out steps")
    parser.add_argument("--samples", type=int, default=2, help="answers at each held-out step, at temperature 1")
    options = parser.parse_args()
    start = options.demo / "sft"
    before = measure(options, "start", start)
    print(line("start", [before], before))
    for arm, settings in ARMS.items():
        runs = []
        for seed in range(options.seeds):
            out = options.out / f"{arm}-{seed}"
            swe_srl(
                "train", "demo-srl", "--model", str(start), "--steps", str(options.demo / "replay-train" / "steps.jsonl"),
                "--tasks", str(options.demo / "tasks-train"), "--out", str(out), "--set", f"seed={seed}",
                "--set", f"updates={options.updates}", *settings,
            )  # fmt: skip
            runs.append(measure(options, out.name, out))
            print(line(out.name, [runs[-1]], before), f"; {cost(out)}", flush=True)
        print(line(f"{arm}, all seeds", runs, before), flush=True)


def measure(options: argparse.Namespace, name: str, model: Path) -> list[StepAgreement]:
    """How well `model` agrees with the teacher on the held-out steps."""
    out = options.out / "eval" / name
    settings = load(DemoConfig, "demo").agreement | {"num_samples": options.samples}
    swe_srl(
        "agree", str(options.demo / "replay-test" / "steps.jsonl"), "--tasks", str(options.demo / "tasks-test"),
        "--policy", str(model), "--name", name, "--out", str(out), "--limit", str(options.steps),
        *(f"--set={key}={value}" for key, value in settings.items()),
    )  # fmt: skip
    return list(read_records(out / STEP_AGREEMENT, StepAgreement))


def swe_srl(*arguments: str) -> None:
    """One verb."""
    subprocess.run([sys.executable, "-m", "swe_srl.cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def line(name: str, runs: Sequence[Sequence[StepAgreement]], before: Sequence[StepAgreement]) -> str:
    """Similarity with its interval, the paired difference to `before`, and the answers' length beside it."""
    similarity = by_step(runs, "similarity")
    tasks = {row.step_id: row.task_id for run in runs for row in run}
    mean = bootstrap_mean(list(similarity.values()), groups=[tasks[step] for step in similarity])
    gain = paired_difference(by_step([before], "similarity"), similarity, groups=tasks)
    lengths = [statistics.fmean(by_step(part, "mean_tokens").values()) for part in (runs, [before])]
    return (
        f"{name}: {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}], {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] "
        f"on {mean.n} steps; {lengths[0]:.1f} tokens an answer ({lengths[0] / lengths[1] - 1:+.1%})"
    )


def by_step(runs: Sequence[Sequence[StepAgreement]], measure: str) -> dict[str, float]:
    """Each step's mean over the runs."""
    values = defaultdict(list)
    for run in runs:
        for row in run:
            values[row.step_id].append(float(getattr(row, measure)))
    return {step: statistics.fmean(of_step) for step, of_step in values.items()}


def cost(run: Path) -> str:
    """What its updates took."""
    rows = list(read_records(run / METRICS, UpdateMetrics))
    return f"{statistics.fmean(row.collect_s for row in rows):.0f} s sampling and {statistics.fmean(row.train_s for row in rows):.0f} s training an update"


if __name__ == "__main__":
    main()
