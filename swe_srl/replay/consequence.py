"""A student's action in the expert's state, then the rest of the expert's → Reward: the share of FAIL_TO_PASS that passes.

Called `tests` where rewards are named. The grading is injected, as in replay/run.py: the hidden tests are read there, and
only their numbers come here. It measures the other rewards (scripts/bench/calibration.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from swe_srl.dialogue import parse
from swe_srl.errors import SandboxError
from swe_srl.replay.effect import OpenBox, reach
from swe_srl.replay.run import GradeFn
from swe_srl.replay.tools import perform
from swe_srl.rewards.base import malformed
from swe_srl.schema import Prediction, Reward, Step

UNPARSED = -1.0


def consequence_of(
    completion: str,
    step: Step,
    history: Sequence[Step],
    open_box: OpenBox,
    grade: GradeFn,
    *,
    rest: Sequence[Step] = (),
    timeout_s: float = 60.0,
) -> Reward:
    """Do the student's action at `step`, then the `rest` as far as given, and grade the diff.

    What the rest's commands end with does not matter, for the student may have done their work. A verdict that finds
    tampering is worth 0. Raises ApparatusError when a box breaks, the state is not reached, or the diff cannot be graded.
    """
    parsed = parse(completion)
    if parsed.command is None:
        return malformed(UNPARSED, parsed.problem)
    with open_box() as box:
        reach(history, box, timeout_s=timeout_s)
        for command in (parsed.command, *(later.command for later in rest)):
            if command.tool == "submit":
                break
            perform(command, box, timeout_s=timeout_s)
        patch = box.diff()
    verdict = grade(Prediction(task_id=step.task_id, model="student", patch=patch, exit_status="submitted"))
    if verdict.status == "infra_failure":
        raise SandboxError(f"the diff after {step.step_id} could not be graded: {verdict.note}")
    share = verdict.num_fail_to_pass_passed / max(1, verdict.num_fail_to_pass)
    kept = verdict.num_pass_to_pass_passed / max(1, verdict.num_pass_to_pass)
    parts = {"well_formed": 1.0, "fail_to_pass": share, "pass_to_pass": kept, "resolved": float(verdict.resolved)}
    value = 0.0 if verdict.status == "tampered" else share
    return Reward(value=value, parts=parts, note="" if verdict.resolved else verdict.status)
