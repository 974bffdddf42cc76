"""What the documents tell a reader to type can be typed, and what they point to is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from attacks import ATTACKS, RAW_PATCHES
from documents import PAGES, ROOT, Command, anchors, commands, prose
from page_runs import make_steps, write
from typer.testing import CliRunner

from swe_srl.cli import VERBS, app
from swe_srl.errors import ConfigError
from swe_srl.evaluation.modes import mode_config
from swe_srl.evaluation.steps import AgreementConfig
from swe_srl.making.exchange import import_rows
from swe_srl.rewards import reward_config
from swe_srl.runtime.base import SandboxConfig
from swe_srl.settings import Config, apply_overrides, build, load, read_toml
from swe_srl.study.config import StudyConfig
from swe_srl.teaching.teach import TeachConfig
from swe_srl.training.chain import chain_config
from swe_srl.training.config import TrainConfig

COMMANDS = [command for page in PAGES for command in commands(page)]
OURS = [command for command in COMMANDS if command.arguments]
SCRIPTS = [command for command in COMMANDS if not command.arguments]
LIGHT = [command for command in OURS if "--dry-run" in command.words or command.arguments[-1] in ("--help", "recipes")]

ROW = {
    "instance_id": "me__project-1", "repo": "me/project", "version": "1", "base_commit": "0" * 40, "problem_statement": "f(1) is 3",
    "patch": "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n", "test_patch": "", "FAIL_TO_PASS": ["t.py::test_a"], "PASS_TO_PASS": [],
    "image": "me/project:1", "eval_script": "#!/bin/bash\n", "log_parser": "parse_log_pytest", "eval_type": "pass_and_fail",
}  # fmt: skip


def parse(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """A command line through the verbs' own parsers: the verb's name and what it would be called with."""
    group: Any = typer.main.get_command(app)
    name, context = "", group.make_context("swe-srl", list(arguments))
    while hasattr(group, "resolve_command"):
        part, group, arguments = group.resolve_command(context, list(arguments))
        name = f"{name} {part}".strip()
        context = group.make_context(part, list(arguments), parent=context)
    return name, context.params


def check_settings(verb: str, given: dict[str, Any]) -> None:
    """Build what `--set` and `--box` name, as the verb would. Raises ConfigError."""
    sets, table = given.get("set_") or [], apply_overrides({}, given.get("set_") or [])
    if given.get("box"):
        build(SandboxConfig, apply_overrides({}, given["box"]), "--box")
    if verb == "train" and "stages" in read_toml(given["config"]):
        chain_config(read_toml(given["config"]), sets, {}, given["out"], given["config"])
    elif verb == "train":
        load(TrainConfig, given["config"], sets)
    elif verb == "study":
        load(StudyConfig, given["preset"], sets)
    elif verb == "predict":
        preset = given["preset"]
        mode_config(given["mode"], apply_overrides(read_toml(preset) if preset else {}, sets))
    elif verb == "teach":
        table.pop("endpoint", None)
        build(TeachConfig, table, "--set")
    elif verb == "agree":
        build(AgreementConfig, {key: value for key, value in table.items() if key != "reward"}, "--set")
    elif verb == "reward":
        reward_config(given["reward"])


def says(command: Command) -> str:
    return str(command)


def test_the_documents_hold_commands_of_every_verb() -> None:
    verbs = {parse(command.arguments)[0].split()[0] for command in OURS}
    assert verbs == set(VERBS), "each verb is shown somewhere"
    assert LIGHT
    assert SCRIPTS


@pytest.mark.parametrize("command", OURS, ids=says)
def test_a_command_of_the_documents_is_one_that_its_verb_takes(command: Command) -> None:
    verb, given = parse(command.arguments)
    if command.page.name != "add-a-reward.md":  # whose reward is there once the page is followed: test_add_a_reward.py
        check_settings(verb, given)


@pytest.mark.parametrize("command", SCRIPTS, ids=says)
def test_a_script_of_the_documents_is_there_and_knows_the_options(command: Command) -> None:
    script = next(word for word in command.words if word.startswith("scripts/"))
    text = (ROOT / script).read_text()
    for word in command.words:
        if word.startswith("--"):
            assert f'"{word.partition("=")[0]}"' in text, f"{script} has no option {word}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents' commands begin with: tasks, and a teacher's steps on them."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    for name in ("tasks", "heldout"):
        import_rows(str(folder / "rows.jsonl"), folder / name)
    for name in ("replay", "swe-smith"):
        (folder / "runs" / name).mkdir(parents=True)
        write(folder / "runs" / name, "steps.jsonl", make_steps(ROW["instance_id"], 3, "ok"))  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("command", LIGHT, ids=says)
def test_a_command_that_only_tells_is_run(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    result = CliRunner().invoke(app, command.arguments)
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    assert result.output.strip()


def test_a_command_with_an_option_or_setting_that_is_not_there_is_found() -> None:
    for words in ("gradee x", "grade x --tasks t --out o --fast", "grade x --out o", "tasks check t --repeats none"):
        with pytest.raises(Exception, match=r"(?i)no such|missing|valid integer"):
            parse(words.split())
    for words in ("train srl --out o --set algorithm.group=8", "train srl-13b --out o", "predict --tasks t --policy p --out o --set turns=3"):  # fmt: skip
        with pytest.raises(ConfigError):
            check_settings(*parse(words.split()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for text, address in re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", address):
            continue
        path, _, anchor = address.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"[{text}]({address})"
        if anchor:
            assert anchor in anchors(target), f"[{text}]({address}): no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_tests_that_are_named_exist(page: Path) -> None:
    tests = {name for path in ROOT.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    for word in re.findall(r"`([^`\s]+)`", prose(page)):
        if re.match(r"(swe_srl|scripts|docs|tests|sandboxes|trajectories|deploy)/", word) and not re.search(r"[<*…A-Z]{2,}|\*", word):  # fmt: skip
            assert (ROOT / word.partition(":")[0]).exists(), f"`{word}` is not in the project"
        if re.fullmatch(r"test_\w+", word) and page.parent.name != "reference":  # which has settings of such names
            assert word in tests, f"there is no test {word}"


def test_the_attacks_that_the_threat_model_names_are_given_to_the_grader() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text()
    rows = text.partition("## What a patch may try")[2].partition("\n## ")[0].splitlines()
    named = [name for row in rows if row.startswith("| ") for name in re.findall(r"`([^`]+)`", row.split(" | ")[-1])]
    assert len(named) > 25
    for name in named:
        assert name in ATTACKS or name in RAW_PATCHES, f"no attack is called {name!r}"


def test_the_reference_is_that_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_needs_nothing_heavy_and_names_every_verb_and_setting() -> None:
    pages = {name: (ROOT / "docs" / "reference" / name).read_text() for name in ("cli.md", "config.md")}
    for verb in VERBS:
        assert f"## `swe-srl {verb}" in pages["cli.md"]
    configs = [TrainConfig, *Config.__subclasses__()]
    assert sum(f"## {config.__name__}\n" in pages["config.md"] for config in configs) > 20
    code = "import sys; sys.path.insert(0, 'scripts'); import reference; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "docker", "swebench", "transformers"} & set(done.stdout.split())


def test_every_page_is_found_from_the_first() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / address.partition("#")[0]).resolve() for address in re.findall(r"\]\(([^)]+)\)", index.read_text())}  # fmt: skip
    for page in ROOT.glob("docs/**/*.md"):
        if page.parent.name != "decisions" and page != index:
            assert page in linked, f"docs/README.md does not lead to {page.relative_to(ROOT)}"
    assert "(docs/README.md)" in (ROOT / "README.md").read_text()
