"""Prediction + GradingSpec + a fresh Sandbox → Graded: the trusted tests run on the patched tree."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from swe_srl.grading.patches import Applied, apply_patch
from swe_srl.grading.rules import eval_script, infra_signature, judge, reason_without_tests
from swe_srl.runtime.base import Sandbox
from swe_srl.schema import GradingSpec, Prediction, Verdict, VerdictStatus

EVAL_FILE = "/eval.sh"


class Graded(NamedTuple):
    """A verdict and the papers behind it."""

    verdict: Verdict
    log: str = ""
    """SWE-bench's `test_output.txt`; empty when no test ran."""
    report: dict[str, Any] = {}  # noqa: RUF012  never changed, and a NamedTuple cannot build a default
    """SWE-bench's `report.json`; empty where SWE-bench writes none: no patch, a patch that does not apply, a time-out."""
    instance_log: str = ""
    """What the commands that applied the patch said: SWE-bench's `run_instance.log`."""


class EvalLog(NamedTuple):
    """What the eval script printed."""

    log: str
    timed_out: bool


def grade(
    prediction: Prediction, spec: GradingSpec, sandbox: Sandbox, *, timeout_s: float, version: str = ""
) -> Graded:
    """Apply the patch in a fresh box, run the trusted tests, and judge by swebench 5's rules.

    An empty patch is not run. `timeout_s` bounds the tests, and each command that applies the patch. `version` is the
    task's. Raises SandboxError when the box is gone: that is no verdict on the patch.
    """
    start = time.monotonic()
    if not prediction.patch.strip():
        return Graded(verdict_without_tests(prediction, spec, "empty_patch"))
    applied = apply_patch(prediction.patch, sandbox, timeout_s=timeout_s)
    if not applied.ok:
        return not_applied(prediction, spec, applied, duration_s=time.monotonic() - start)
    run = run_tests(eval_script(spec), sandbox, timeout_s=timeout_s)
    graded = judge_run(prediction, spec, run, version=version, duration_s=time.monotonic() - start)
    return graded._replace(instance_log=applied.log)


def grade_unpatched(spec: GradingSpec, sandbox: Sandbox, *, timeout_s: float, version: str = "") -> Graded:
    """Run the trusted tests on the tree as it stands: what a task check does to see that an empty patch resolves nothing."""
    start = time.monotonic()
    prediction = Prediction(task_id=spec.task_id, model="unpatched", patch="", exit_status="")
    run = run_tests(eval_script(spec), sandbox, timeout_s=timeout_s)
    return judge_run(prediction, spec, run, version=version, duration_s=time.monotonic() - start)


def not_applied(prediction: Prediction, spec: GradingSpec, applied: Applied, *, duration_s: float) -> Graded:
    """The verdict on a patch that does not apply."""
    note = applied.log.splitlines()[-1]
    verdict = verdict_without_tests(prediction, spec, "patch_failed", note=note, duration_s=duration_s)
    return Graded(verdict, instance_log=applied.log)


def run_tests(script: str, sandbox: Sandbox, *, timeout_s: float, environment: str = "") -> EvalLog:
    """Run an eval script from `/eval.sh`; at the time-out keep what it printed, as swebench does.

    `environment` are assignments in bash, for the script alone.
    """
    sandbox.write_file(EVAL_FILE, script.encode())
    result = sandbox.run(f"{environment} /bin/bash {EVAL_FILE}".lstrip(), timeout_s=timeout_s)
    log = result.output
    if result.num_bytes_dropped:
        log += f"\n[{result.num_bytes_dropped} bytes of output beyond the box's limit are missing]\n"
    if result.timed_out:
        log += f"\n\nTimeout error: {timeout_s:g} seconds exceeded."
    return EvalLog(log, result.timed_out)


def judge_run(
    prediction: Prediction,
    spec: GradingSpec,
    run: EvalLog,
    *,
    version: str = "",
    duration_s: float = 0.0,
    whole_log: bool = False,
) -> Graded:
    """The verdict that a log gives; `whole_log` as in `rules.judge`."""
    if run.timed_out:
        last = run.log.rstrip().rpartition("\n")[2]
        return Graded(
            verdict_without_tests(prediction, spec, "timed_out", note=last, duration_s=duration_s), log=run.log
        )
    content = judge(run.log, spec, version=version, whole_log=whole_log)
    tests = content.get("tests_status")
    report = {spec.task_id: content}
    if tests is None:
        reason = reason_without_tests(run.log, spec, version=version, whole_log=whole_log)
        guess = infra_signature(run.log)
        note = f"no test results: {reason}" + (f" (swebench's guess: {guess})" if guess else "")
        return Graded(
            verdict_without_tests(prediction, spec, "unresolved", note=note, duration_s=duration_s), run.log, report
        )
    fail_to_pass, pass_to_pass = tests["FAIL_TO_PASS"], tests["PASS_TO_PASS"]
    verdict = Verdict(
        task_id=prediction.task_id,
        model=prediction.model,
        attempt=prediction.attempt,
        patch_digest=prediction.patch_digest,
        status="resolved" if content["resolved"] else "unresolved",
        tests_failed=(*fail_to_pass["failure"], *pass_to_pass["failure"]),
        num_fail_to_pass=len(spec.fail_to_pass),
        num_fail_to_pass_passed=len(fail_to_pass["success"]),
        num_pass_to_pass=len(spec.pass_to_pass),
        num_pass_to_pass_passed=len(pass_to_pass["success"]),
        duration_s=duration_s,
    )
    return Graded(verdict, run.log, report)


def verdict_without_tests(
    prediction: Prediction, spec: GradingSpec, status: VerdictStatus, *, note: str = "", duration_s: float = 0.0
) -> Verdict:
    """A verdict when no expected test is known to have passed; `tests_failed` stays empty, for none is known to fail."""
    return Verdict(
        task_id=prediction.task_id,
        model=prediction.model,
        attempt=prediction.attempt,
        patch_digest=prediction.patch_digest,
        status=status,
        num_fail_to_pass=len(spec.fail_to_pass),
        num_pass_to_pass=len(spec.pass_to_pass),
        note=note,
        duration_s=duration_s,
    )
