"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import Machines

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def base_image() -> str:
    """Tag of the base image. Without an engine a test is skipped, or fails where SWE_SRL_REQUIRE_DOCKER is 1."""
    problem = ""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0
    ):
        problem = "no container engine answers: run scripts/ensure_docker.sh"
    else:
        made = subprocess.run([ROOT / "scripts" / "base_image.sh"], capture_output=True, text=True, check=False)
        if made.returncode == 0:
            return made.stdout.strip().splitlines()[-1]
        problem = f"there is no base image: {made.stderr.strip()}"
    if os.environ.get("SWE_SRL_REQUIRE_DOCKER") == "1":
        pytest.fail(problem)
    pytest.skip(problem)


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """A Ray cluster, for a process can be part of one only; `have` says how many machines it is to have."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'swe-srl[ray]'")
    from swe_srl.runtime.remote import leave_all

    made = Machines()
    yield made
    leave_all()
    made.close()
