"""`python teaching_process.py URL OUT`: for each line on stdin, a forked process teaches under the settings in that line.

Forked from one that has imported everything: twenty starts from nothing would take longer than what is tested. It says
`pid N` on stdout when a process has begun and `exit CODE` when it has ended, however that was.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import openai  # noqa: F401  # here, and not in every process
import tenacity  # noqa: F401

from swe_srl.policy.base import Sampling
from swe_srl.policy.endpoint import EndpointConfig
from swe_srl.policy.prices import Price
from swe_srl.schema import Prediction, Task, Verdict
from swe_srl.store import Run
from swe_srl.teaching.budget import BudgetConfig
from swe_srl.teaching.teach import TeachConfig, teach
from swe_srl.testing import FakeSandbox

PRICE = Price(input=1.0, cached_input=0.1, output=5.0)
MAX_NEW_TOKENS = 60


def tasks(number: int) -> list[Task]:
    """So many tasks that differ in their name."""
    return [
        Task(task_id=f"t{i}", repo="toy", base_commit="0" * 40, problem_statement=f"mend t{i}", image="toy:1")
        for i in range(number)
    ]


def open_box(task: Task) -> FakeSandbox:
    """A box in which `fix` mends the task."""

    def fix(box: FakeSandbox) -> str:
        box.write_file("a.py", b"x = 2\n")
        return ""

    return FakeSandbox({"a.py": "x = 1\n"}, {"fix": fix, "ls": f"a.py of {task.task_id}\n" * 9})


def grade(prediction: Prediction) -> Verdict:
    """Resolved where it is mended."""
    status = "resolved" if "+x = 2" in prediction.patch else "unresolved"
    return Verdict(
        task_id=prediction.task_id, model=prediction.model, patch_digest=prediction.patch_digest, status=status
    )


def run(url: str, out: str, settings: dict[str, Any]) -> None:
    """One start of a run."""
    endpoint = EndpointConfig(model="m", base_url=url, max_parallel=3, **settings["endpoint"])
    config = TeachConfig(
        workers=4,
        sampling=Sampling(temperature=0.7, max_new_tokens=MAX_NEW_TOKENS),
        budget=BudgetConfig(max_usd=settings["max_usd"], price=PRICE),
    )
    policy = endpoint.build()
    teach(tasks(settings["tasks"]), config, Run(out), policy=policy, open_box=open_box, grade=grade)
    policy.close()


def main() -> None:
    """Fork for each line."""
    url, out = sys.argv[1:]
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run(url, out, json.loads(line))
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(f"pid {pid}", flush=True)  # noqa: T201
        print(f"exit {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
