"""A test log and the hidden answer → SWE-bench's report; swebench 5's own parsers and rules, never its Docker code.

Importing swebench takes over a second (it brings datasets, docker and modal), so it is imported inside the functions.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_srl.benchmarks.dialects import trimmed_test
from swe_srl.errors import ConfigError
from swe_srl.schema import GradingSpec

if TYPE_CHECKING:
    from swebench.types import TestSpec

START_TEST_OUTPUT = ">>>>> Start Test Output"
END_TEST_OUTPUT = ">>>>> End Test Output"
PATCH_APPLY_FAILED = ">>>>> Patch Apply Failed"

EvalReport = dict[str, Any]
"""What SWE-bench writes under an instance's id in `report.json`."""


def import_swebench() -> None:
    """Import what the functions below import when they are called."""
    import swebench.harness.grading
    import swebench.harness.infra_failure
    import swebench.harness.utils  # noqa: F401


def eval_script(spec: GradingSpec) -> str:
    """The script that grading runs: the task's own, which records the test command's exit code after the end marker."""
    return str(_test_spec(spec, version="").eval_script)


def judge(log: str, spec: GradingSpec, *, version: str = "", whole_log: bool = False) -> EvalReport:
    """What `log` says of the expected tests, by swebench's `get_eval_report`.

    Args:
        log: the whole output of the eval script.
        spec: the expected tests and the name of the parser.
        version: the task's version; swebench's parsers of some JavaScript projects depend on it.
        whole_log: read a log without markers (2024 harness) from its first to its last line. Never set in live grading:
            there a missing marker means that the tests did not run.

    Raises ConfigError when swebench knows no such parser.
    """
    from swebench.harness.grading import get_eval_report
    from swebench.harness.log_parsers import PARSER_REGISTRY

    if spec.log_parser not in PARSER_REGISTRY:
        raise ConfigError(
            f"task {spec.task_id}: swebench has no log parser {spec.log_parser!r}: mend the task's log_parser"
        )
    if whole_log and START_TEST_OUTPUT not in log:
        log = f"{START_TEST_OUTPUT}\n{log}\n{END_TEST_OUTPUT}\n"
    prediction = {"instance_id": spec.task_id, "model_name_or_path": "", "model_patch": "not read"}
    with tempfile.TemporaryDirectory(prefix="swe-srl-log-") as folder:
        # swebench parses a file, with universal newlines: a progress bar's \r ends a line
        path = Path(folder) / "test_output.txt"
        path.write_bytes(log.encode("utf-8", "replace"))
        report = get_eval_report(_test_spec(spec, version), prediction, str(path), include_tests_status=True)
    content: EvalReport = report[spec.task_id]
    return (
        _compared(content, log, spec, version) if spec.eval_type == "exact" and "tests_status" in content else content
    )


def _compared(content: EvalReport, log: str, spec: GradingSpec, version: str) -> EvalReport:
    """R2E-Gym's rule: resolved if and only if every test, and no other, came to what it is expected to come to."""
    from swebench.harness.log_parsers import PARSER_REGISTRY

    inside = log.split(START_TEST_OUTPUT)[1].split(END_TEST_OUTPUT, maxsplit=1)[0]
    parsed = PARSER_REGISTRY[spec.log_parser](inside, _test_spec(spec, version))
    found = {trimmed_test(test): str(status) for test, status in parsed.items()}
    same = sorted(test for test, status in spec.expected.items() if found.get(test) == status)
    other = sorted((set(spec.expected) | set(found)) - set(same))
    return content | {
        "resolved": not other,
        "tests_status": content["tests_status"] | {"PASS_TO_PASS": {"success": same, "failure": other}},
    }


def reason_without_tests(log: str, spec: GradingSpec, *, version: str = "", whole_log: bool = False) -> str:
    """Why `judge` finds no test results in `log`: the first of swebench 5's reasons that holds (`get_logs_eval`)."""
    from swebench.harness.constants import APPLY_PATCH_FAIL, RESET_FAILED, TESTS_ERROR, TESTS_TIMEOUT
    from swebench.harness.grading import SUITE_RAN, parse_test_exit_code
    from swebench.harness.log_parsers import PARSER_REGISTRY

    for sign in (APPLY_PATCH_FAIL, RESET_FAILED, TESTS_ERROR, TESTS_TIMEOUT):
        if sign in log:
            return f"the log holds {sign!r}"
    if not whole_log and not (START_TEST_OUTPUT in log and END_TEST_OUTPUT in log):
        return "the log has no markers around the tests' output"
    if not PARSER_REGISTRY[spec.log_parser](log, _test_spec(spec, version)) and not SUITE_RAN.search(log):
        return f"{spec.log_parser} finds no result in the log, and there is no sign that the suite ran (swebench 4 counted every test as failed)"
    code = parse_test_exit_code(log)
    return f"exit code {code} without a failed test" if code else ""


def infra_signature(log: str) -> str:
    """The name swebench gives to what may be wrong with the environment, e.g. `out_of_memory`; empty when it sees nothing.

    Advisory, as in swebench: it never changes a verdict.
    """
    from swebench.harness.infra_failure import classify_text

    found = classify_text(log)
    return str(found[0]) if found else ""


def _test_spec(spec: GradingSpec, version: str) -> TestSpec:
    from swebench.harness.utils import make_test_spec

    return make_test_spec(
        {
            "instance_id": spec.task_id,
            "image": "",
            "repo": "",
            "version": version,
            "FAIL_TO_PASS": list(spec.fail_to_pass),
            "PASS_TO_PASS": list(spec.pass_to_pass),
            "log_parser": spec.log_parser,
            "eval_type": "pass_and_fail" if spec.eval_type == "exact" else spec.eval_type,
            "eval_script": spec.eval_script,
        }
    )
