"""docs/how-to/add-a-reward.md is followed to the letter in a copy of the project, and its commands print what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, blocks, typed

PAGE = ROOT / "docs" / "how-to" / "add-a-reward.md"
PLACES = {"| PatchConfig": "swe_srl/rewards/members.py", "StructuredConfig": "swe_srl/rewards/members.py", "num_files": "tests/contract/test_rewards.py"}  # fmt: skip


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which a reader did what the page says."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("swe_srl", "sandboxes", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests" / "contract").mkdir(parents=True)
    shutil.copy(ROOT / "tests/contract/test_rewards.py", folder / "tests/contract")
    for block in blocks(PAGE):
        if block.language == "python":
            (folder / "swe_srl" / "rewards" / "words.py").write_text(block.text)
        elif block.language == "diff":
            change(folder, block.text)
    return folder


def change(folder: Path, diff: str) -> None:
    """Put the lines with + in the place of those with -, where these stand once."""
    old = "".join(f"{line[1:]}\n" for line in diff.splitlines() if line.startswith("-"))
    new = "".join(f"{line[1:]}\n" for line in diff.splitlines() if line.startswith("+"))
    path = folder / next(place for word, place in PLACES.items() if word in old)
    text = path.read_text()
    assert text.count(old) == 1, f"{path} does not hold once what the page changes:\n{old}"
    path.write_text(text.replace(old, new))


def run(command: str, folder: Path) -> str:
    """What a command prints in the reader's copy."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_reward_of_the_page_passes_the_suite_of_all_rewards(followed: Path) -> None:
    shown = run("python -m pytest -q -p no:cacheprovider tests/contract/test_rewards.py -k 'words or finite'", followed)
    assert "passed" in shown


def test_the_commands_of_the_page_print_what_it_says(followed: Path) -> None:
    [block] = [block for block in blocks(PAGE) if "pairs.jsonl" in block.text]
    shown = "".join(run(command.text, followed) for command in typed(block))
    assert shown == "".join(f"{line}\n" for line in block.text.splitlines() if not line.startswith("$ "))


def test_the_reference_of_the_copy_names_the_new_reward(followed: Path) -> None:
    run("python scripts/reference.py", followed)
    assert "## WordsConfig" in (followed / "docs" / "reference" / "config.md").read_text()
